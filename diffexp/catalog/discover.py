"""The catalog of everything that can be chosen on the command line, found without importing any of it."""

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from diffexp.catalog.diffusers import class_entry, class_names
from diffexp.catalog.entry import Entry
from diffexp.catalog.register import KINDS
from diffexp.catalog.scan import Found, relative, scan, scan_module
from diffexp.catalog.signatures import RESERVED, NeedsImport
from diffexp.catalog.sources import (
    Source,
    built_in_sources,
    conf_dir,
    conf_folder,
    installed_sources,
    plugin_paths,
    plugin_sources,
    raised_at,
)
from diffexp.catalog.types import MISSING, check_values
from diffexp.errors import InputError, hint

CALLED = ("metric", "tracker")
TARGET = "_target_"


@dataclass(frozen=True)
class Catalog:
    """All entries, and the folders with YAML configs (the package's own first)."""

    entries: Mapping[tuple[str, str], Entry]
    """What registers itself; the classes of diffusers come on top, read when asked for (see ``find``)."""
    conf_dirs: tuple[Path, ...]
    plugin_paths: tuple[Path, ...]
    """Absolute paths of the plugin files and folders, for worker processes."""
    silent: tuple[Path, ...]
    """Plugin files that register nothing."""

    def of_kind(self, kind: str) -> dict[str, Entry]:
        return {name: entry for (own, name), entry in self.entries.items() if own == kind}

    def names(self, kind: str) -> list[str]:
        """Every option of a kind, the classes of diffusers included."""
        return [*self.of_kind(kind), *class_names(kind)]

    def find(self, kind: str, name: str) -> Entry | None:
        """The entry of that name, if there is one."""
        return self.entries.get((kind, name)) or class_entry(kind, name)

    def get(self, kind: str, name: str) -> Entry:
        """
        Raises:
            InputError: there is none of that name; with the nearest spelling.
        """
        entry = self.find(kind, name)
        if entry is None:
            raise InputError(f"{kind}={name} is not known{hint(name, self.names(kind))}")
        return entry

    def place_of(self, error: BaseException) -> str:
        """File and line of the plugin that an error was raised in; empty where it was in none."""
        return raised_at(error, {entry.source.place for entry in self.entries.values() if not entry.built_in})

    def build(self, kind: str, node: Mapping[str, Any]) -> Any:
        """The object that a config node ``{name, options...}`` stands for.

        A metric or tracker is built with its options; anything else is returned as a ``functools.partial`` that has
        them bound. A node with ``_target_`` names any importable class or function instead of a registered one.

        Raises:
            InputError: an unknown name or option, or a plugin that cannot be imported.
        """
        values = {key: _as_plain(value) for key, value in node.items()}
        name = str(values.get("name"))
        reserved = RESERVED.get(kind, ("name",))
        given = {key: value for key, value in values.items() if key not in (*reserved, TARGET)}
        if TARGET in values:
            thing = locate(str(values[TARGET]), f"{kind}.{TARGET}")
            check_keywords(kind, thing, given)
            return thing(**given) if kind in CALLED else functools.partial(thing, **given)
        entry = self.get(kind, name)
        options = {option.name: option for option in entry.options}
        for key, value in given.items():
            entry.check_option(key)
            if value == MISSING:
                raise InputError(f"{kind}={name} needs {kind}.{key}=...")
        check_values(entry.options, given, entry.path)
        thing = entry.load()
        if entry.open:
            check_keywords(kind, thing, given)
        given = {k: tuple(v) if k in options and options[k].type.base == "tuple" and v else v for k, v in given.items()}
        return thing(**given) if kind in CALLED else functools.partial(thing, **given)


def discover() -> Catalog:
    """Find everything, by reading and not running files.

    Raises:
        InputError: a syntax error in a plugin, a wrong signature, or two plugins of the same name.
    """
    paths = plugin_paths()
    plugins = [source for path in paths for source in plugin_sources(path)]
    installed = installed_sources()
    entries: list[Entry] = []
    silent: list[Path] = []
    for source in [*built_in_sources(), *installed, *plugins]:
        found = _entries(source)
        entries += found
        if source.by_path and not found:
            silent.append(source.file)
    # A plugin folder may hold configs only.
    folders = [path / "conf" for path in paths if (path / "conf").is_dir()]
    folders += [folder for source in installed if (folder := conf_folder(source))]
    dirs = (conf_dir(), *dict.fromkeys(folders))
    entries = [_beside_its_namesake(entry, entries) for entry in entries]
    _check_collisions(entries, dirs)
    return Catalog({(e.kind, e.name): e for e in entries}, dirs, tuple(paths), tuple(silent))


def yaml_options(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Group, option and file of every YAML config below a conf folder; Hydra's own groups left out."""
    for file in sorted(folder.glob("*/*.yaml")):
        if file.parent.name != "hydra":
            yield file.parent.name, file.stem, file


def locate(path: str, what: str) -> Any:
    """The object at a dotted path.

    Raises:
        InputError: there is no such thing; ``what`` is the key that named it.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise InputError(f"{what}={path} is not a dotted path like diffusers.DDIMScheduler")
    try:
        home = import_module(module)
    except ImportError as error:
        raise InputError(f"{what}={path}: {error}") from error
    try:
        return getattr(home, name)
    except (AttributeError, ImportError) as error:
        near = get_close_matches(name, dir(home), n=1)
        raise InputError(f"{what}={path} does not exist" + (f"; did you mean '{near[0]}'?" if near else "")) from error


def check_keywords(kind: str, thing: Any, given: Mapping[str, Any]) -> None:
    """
    Raises:
        InputError: ``thing`` does not take one of the keywords.
    """
    parameters = inspect.signature(thing).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    names = [parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY]
    for key in given:
        if key not in names:
            raise InputError(f"unknown option '{kind}.{key}'{hint(key, names)}")


def _entries(source: Source) -> tuple[Entry, ...]:
    try:
        state = source.file.stat()
    except OSError as error:
        raise InputError(f"{relative(source.file)}: the plugin cannot be read: {error}") from error
    return _read(source, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=1024)
def _read(source: Source, *state: int) -> tuple[Entry, ...]:
    """The entries of a file, kept for as long as it stays as it is."""
    shown = relative(source.file)
    try:
        text = source.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{shown}: the plugin cannot be read: {error}") from error
    try:
        found = scan(text, shown)
    except NeedsImport:
        found = scan_module(source.load(), shown)
    return tuple(_entry(source, one) for one in found)


def _entry(source: Source, found: Found) -> Entry:
    own = found.registration
    if not isinstance(own.name, str) or not own.name.replace("-", "_").replace(".", "_").isidentifier():
        shown = f"{relative(source.file)}:{found.line}"
        raise InputError(f"{shown}: '{own.name}' cannot be a name: use letters, digits, '_', '-' and '.'")
    return Entry(
        kind=own.kind,
        name=own.name,
        file=source.file,
        line=found.line,
        qualname=found.qualname,
        options=found.form.options,
        doc=found.doc,
        traits=own.traits,
        style=found.form.style,
        open=found.form.open,
        source=source,
        plain=found.plain,
    )


def _beside_its_namesake(entry: Entry, entries: list[Entry]) -> Entry:
    """A k-diffusion sampler ``sample_heun`` goes by its full name where another scheduler is called ``heun``.

    Nobody chose its name for diffexp, so that is no collision; see ``plain``.
    """
    others = (one for one in entries if one.kind == entry.kind and not one.plain)
    if entry.plain and any(one.name.lower() == entry.name.lower() for one in others):
        return replace(entry, name=entry.qualname)
    return entry


def _check_collisions(entries: list[Entry], conf_dirs: tuple[Path, ...]) -> None:
    """Names are compared without case: some file systems cannot tell ``DDIM.yaml`` from ``ddim.yaml``."""
    taken: dict[tuple[str, str], tuple[Path, str]] = {}
    for entry in entries:
        key = (entry.kind, entry.name.lower())
        if key in taken:
            raise InputError(f"two {entry.kind}s are called '{entry.name}': {taken[key][1]} and {entry.where}")
        taken[key] = (entry.source.place, entry.where)
    package = Path(__file__).resolve().parents[1]
    for folder in conf_dirs:
        place = package if folder == conf_dirs[0] else folder.parent
        for group, option, file in yaml_options(folder):
            key = (group, option.lower())
            # A plugin may refine its own entry by a YAML file of the same name.
            if key in taken and taken[key][0] != place:
                raise InputError(f"two {group}s are called '{option}': {taken[key][1]} and {relative(file)}")
            taken.setdefault(key, (place, relative(file)))


def _as_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_as_plain(item) for item in value]
    return value


__all__ = ["KINDS", "Catalog", "Entry", "discover", "hint", "yaml_options"]
