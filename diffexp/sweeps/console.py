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


def show(make: "Callable[[int | None], RenderableType | None]") -> None:
    """Print something by rich on standard output.

    Args:
        make: takes the width of the terminal, None where there is none; returns what to print, or None.
    """
    from rich.console import Console

    is_terminal = sys.stdout.isatty()
    console = Console() if is_terminal else Console(file=io.StringIO(), width=WIDE)
    made = make(console.width if is_terminal else None)
    if made is None:
        return
    if is_terminal:
        console.print(made)
        return
    console.print(made, soft_wrap=True)
    file = console.file
    assert isinstance(file, io.StringIO)
    lines = [line.rstrip() for line in file.getvalue().rstrip().splitlines()]
    encoding = sys.stdout.encoding or "utf-8"
    print("\n".join(lines).encode(encoding, errors="replace").decode(encoding), flush=True)
