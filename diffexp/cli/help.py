"""The text of ``--help``: every key, every option of every group, every option's keys."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from diffexp.catalog.diffusers import FAMILIES, PREFIX
from diffexp.catalog.discover import Catalog
from diffexp.catalog.entry import Entry, as_typed
from diffexp.catalog.keys import DEFAULT_CHOICES, KEYS
from diffexp.catalog.kinds import KINDS
from diffexp.catalog.scan import relative
from diffexp.catalog.types import MISSING, Option
from diffexp.sweeps.console import unwrapped

HEADER = """\
diffexp: experiments with diffusion schedulers and pipelines

  python -m diffexp model=mnist scheduler=ddim steps=50
  python -m diffexp -m scheduler=ddpm,ddim steps=10,50     every combination
  python -m diffexp experiment=compare_schedulers
  python -m diffexp scheduler=diffusers/unipc scheduler.solver_order=3

Keys (key=value):"""
FLAGS = (
    ("-m", "run a sweep: every combination of the values that are listed"),
    ("--dry-run", "list what would run, with evaluations and time"),
    ("--from-image x.png", "print the command that makes an image again"),
    ("--cfg job", "show the composed config"),
    ("--config-dir DIR", "add a folder of configs"),
    ("--info, --shell-completion", "Hydra's own"),
    ("--hydra-help", "list all flags of Hydra, its launchers and sweepers"),
)
FOOTER = "Plugins are the files and folders in ./plugins, or those that DIFFEXP_PLUGINS names."
NAME_WIDTH = 18
"""Columns that a name of a group has at least."""
OF_GROUP, OF_OPTION = 2, 6
"""Columns that names and their keys are indented by."""


def help_text(catalog: Catalog) -> str:
    """``help_page`` as plain text."""
    return unwrapped(help_page(catalog))


def help_page(catalog: Catalog) -> Group:
    """Everything that can be written on the command line, with types and defaults; plugins marked with their file."""
    keys = ((f"{key.name}={as_typed(key.default)}", key.help) for key in KEYS)
    parts: list[RenderableType] = [Text(HEADER, style="bold"), _columns(keys)]
    for kind in (*KINDS, "experiment"):
        parts += [Text(f"\n{kind}={as_typed(DEFAULT_CHOICES.get(kind))}", style="bold"), *_group(catalog, kind)]
    return Group(*parts, Text("\nFlags:", style="bold"), _columns(FLAGS), Text(f"\n{FOOTER}"))


def _row(name: str, text: str | Text) -> RenderableType:
    """A name and its text, whose further lines stand below it."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(min_width=NAME_WIDTH, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(name, style="cyan"), text if isinstance(text, Text) else Text(text))
    return Padding(grid, (0, 0, 0, OF_GROUP), expand=False)


def _columns(rows: Iterable[tuple[str, str]]) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, text in rows:
        grid.add_row(Text(name, style="cyan"), Text(text))
    return Padding(grid, (0, 0, 0, OF_GROUP), expand=False)


def _option_lines(keys: Iterable[str]) -> Iterator[RenderableType]:
    return (Padding(Text(key), (0, 0, 0, OF_OPTION), expand=False) for key in keys)


def _group(catalog: Catalog, kind: str) -> Iterator[RenderableType]:
    shown = {name: _entry(catalog.get(kind, name)) for name in catalog.names(kind)}
    for group, name, file in catalog.configs:
        if group == kind and name not in shown:
            own = "" if file.is_relative_to(catalog.conf_dirs[0]) else f"  [{relative(file)}]"
            shown[name] = [_row(name, f"{_first_comment(file)}{own}")]
    if kind in FAMILIES:
        shown["diffusers"] = _any_class(kind)
    for name in sorted(shown):
        yield from shown[name]
    if kind == "scheduler":
        note = "values shown for diffusers/... are the class's own; the model's scheduler config takes precedence"
        yield Padding(Text(note), (0, 0, 0, OF_GROUP))
    if kind == "grid":
        note = "with every grid: grid.timesteps=[999,500,0] or grid.sigmas=[80.0,5.0,0.1]"
        yield Padding(Text(note), (0, 0, 0, OF_GROUP))


def _any_class(kind: str) -> list[RenderableType]:
    if kind == "scheduler":
        title, target = "any scheduler class; without one, that of the checkpoint", "str | null = null"
    else:
        title, target = "any guider of diffusers", "str = ???"
    keys = _option_lines((f"{kind}._target_: {target}", f"{kind}.<any keyword of the class>"))
    return [_row("diffusers", title), *keys]


def _entry(entry: Entry) -> list[RenderableType]:
    summary = entry.doc.strip().splitlines()[0] if entry.doc.strip() else ""
    keys = [f"{entry.path}.{_option(option)}" for option in entry.options]
    if entry.accepts_any_option:
        keys.append(f"{entry.path}.<any keyword it takes>")
    return [_row(entry.name, Text(summary).append(_origin(entry), style="dim")), *_option_lines(keys)]


def _origin(entry: Entry) -> str:
    """The file of a plugin, in brackets; empty for what ships."""
    if entry.built_in or entry.name.startswith(PREFIX):
        return ""
    namesake = entry.name.removeprefix("sample_") if entry.is_bare_k_diffusion and entry.name == entry.qualname else ""
    return f"  [{relative(entry.file)}{namesake and f'; {namesake} is another scheduler'}]"


def _option(option: Option) -> str:
    if option.effective_default is MISSING:
        return f"{option.name}: {option.type} = {as_typed(option.default)}"
    kind = replace(option.type, optional=option.effective_default is None)
    return f"{option.name}: {kind} = {as_typed(option.effective_default)}"


def _first_comment(file: Path) -> str:
    comments = re.findall(r"^# (?!@package)(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return comments[0] if comments else ""
