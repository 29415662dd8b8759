"""The text of ``--help``: every key, every option of every group, every option's keys."""

import re
from dataclasses import replace
from pathlib import Path

from diffexp.catalog.diffusers import FAMILIES, PREFIX
from diffexp.catalog.discover import Catalog
from diffexp.catalog.entry import Entry, as_typed
from diffexp.catalog.keys import DEFAULT_CHOICES, KEYS
from diffexp.catalog.kinds import KINDS
from diffexp.catalog.scan import relative
from diffexp.catalog.types import MISSING, Option

HEADER = """\
diffexp: experiments with diffusion schedulers and pipelines

  python -m diffexp model=mnist scheduler=ddim steps=50
  python -m diffexp -m scheduler=ddpm,ddim,euler steps=10,25,50     every combination
  python -m diffexp experiment=compare_schedulers
  python -m diffexp scheduler=diffusers/unipc scheduler.solver_order=3 grid=karras"""

FOOTER = """\
Flags: -m runs a sweep; --dry-run lists what would run, with evaluations and time; --from-image x.png prints the command
that makes an image again; --cfg job shows the composed config; --config-dir adds a folder of configs. --info and
--shell-completion are Hydra's; --hydra-help lists all of its flags, launchers and sweepers.
Plugins are the files and folders in ./plugins, or those that DIFFEXP_PLUGINS names."""


def help_text(catalog: Catalog) -> str:
    """Everything that can be written on the command line, with types and defaults; plugins marked with their file."""
    blocks = [HEADER, "Keys (key=value):\n" + "\n".join(_keys())]
    for kind in (*KINDS, "experiment"):
        blocks.append(f"{kind}={as_typed(DEFAULT_CHOICES.get(kind))}\n" + "\n".join(_group(catalog, kind)))
    return "\n\n".join([*blocks, FOOTER])


def _keys() -> list[str]:
    words = [f"{key.name}={as_typed(key.default)}" for key in KEYS]
    width = max(map(len, words))
    return [f"  {word:{width}}  {key.help}" for word, key in zip(words, KEYS)]


def _group(catalog: Catalog, kind: str) -> list[str]:
    lines = {name: _entry(catalog.get(kind, name)) for name in catalog.names(kind)}
    for group, name, file in catalog.configs:
        if group == kind and name not in lines:
            own = "" if file.is_relative_to(catalog.conf_dirs[0]) else f"  [{relative(file)}]"
            lines[name] = [f"  {name:18} {_first_comment(file)}{own}"]
    if kind in FAMILIES:
        lines["diffusers"] = _any_class(kind)
    shown = [line for name in sorted(lines) for line in lines[name]]
    if kind == "scheduler":
        shown.append(
            "  values shown for diffusers/... are the class's own; the model's scheduler config takes precedence"
        )
    if kind == "grid":
        shown.append("  with every grid: grid.timesteps=[999,500,0] or grid.sigmas=[80.0,5.0,0.1]")
    return shown


def _any_class(kind: str) -> list[str]:
    if kind == "scheduler":
        title, target = "any scheduler class; without one, that of the checkpoint", "str | null = null"
    else:
        title, target = "any guider of diffusers", "str = ???"
    return [
        f"  {'diffusers':18} {title}",
        f"      {kind}._target_: {target}",
        f"      {kind}.<any keyword of the class>",
    ]


def _entry(entry: Entry) -> list[str]:
    summary = entry.doc.strip().splitlines()[0] if entry.doc.strip() else ""
    keys = [f"      {entry.path}.{_option(option)}" for option in entry.options]
    if entry.accepts_any_option:
        keys.append(f"      {entry.path}.<any keyword it takes>")
    return [f"  {entry.name:18} {summary}{_origin(entry)}".rstrip(), *keys]


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
