"""Text on a terminal: colours where it has them (``NO_COLOR`` and ``FORCE_COLOR`` are heeded), tables by rich."""

import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDE = 10_000
"""Columns of a file, which cuts no line."""


def styled(text: str, style: str, stream: TextIO) -> str:
    """The text in a style such as ``bold red`` where ``stream`` shows colours; else the text."""
    if not (stream.isatty() or os.environ.get("FORCE_COLOR")):  # spares the import
        return text
    from rich.color import ColorSystem
    from rich.console import Console
    from rich.style import Style

    console = Console(file=stream)
    if console.color_system is None or console.no_color:
        return text
    return Style.parse(style).render(text, color_system=ColorSystem.STANDARD)


def unwrapped(made: "RenderableType") -> str:
    """What rich makes of something in a file: no line is cut or wrapped, or has blanks at its end."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=WIDE)
    console.print(made, soft_wrap=True)
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip().splitlines())


def show(make: "Callable[[int | None], RenderableType | None]") -> None:
    """Print something by rich on standard output.

    Args:
        make: takes the width of the terminal, None where there is none; returns what to print, or None.
    """
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else None
    made = make(console.width if console else None)
    if made is None:
        return
    if console:
        console.print(made, crop=False)  # what is to be copied stands in one line, however long
        return
    encoding = sys.stdout.encoding or "utf-8"
    print(unwrapped(made).encode(encoding, errors="replace").decode(encoding), flush=True)
