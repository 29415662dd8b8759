"""The catalog of everything that can be chosen on the command line, read without importing any of it."""

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from diffexp.catalog.diffusers import alias_of, class_entry, class_names, why_excluded
from diffexp.catalog.entry import Entry, OptionSet, as_typed
from diffexp.catalog.given import PREFIX as OBJECT, given_entries
from diffexp.catalog.kinds import KINDS, TARGET
from diffexp.catalog.scan import RegisteredObject, relative, scan, scan_module
from diffexp.catalog.signatures import NeedsImport
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
from diffexp.catalog.types import to_containers
from diffexp.errors import InputError, hint, unknown_option

FileState = tuple[int, int]
"""Time of the last change in ns, and size in bytes."""


@dataclass(frozen=True)
class Catalog:
    """All entries, and the folders with YAML configs, those of the package first."""

    entries: Mapping[tuple[str, str], Entry]
    """Everything that registers itself; the classes of diffusers are read when they are looked up (see ``find``)."""
    conf_dirs: tuple[Path, ...]
    configs: tuple[tuple[str, str, Path], ...]
    """Group, option and file of every YAML config in ``conf_dirs``."""
    plugin_paths: tuple[Path, ...]
    """Absolute paths of the plugin files and folders."""
    without_registrations: tuple[Path, ...]
    """Plugin files that register nothing."""

    def of_kind(self, kind: str) -> dict[str, Entry]:
        """The entries of a kind by name, without the classes of diffusers."""
        return {name: entry for (own, name), entry in self.entries.items() if own == kind}

    def names(self, kind: str) -> list[str]:
        """Every option of a kind, the classes of diffusers included."""
        return [*self.of_kind(kind), *class_names(kind)]

    def find(self, kind: str, name: str) -> Entry | None:
        """The entry of that name, if there is one."""
        return self.entries.get((kind, name)) or class_entry(kind, name)

    def get(self, kind: str, name: str) -> Entry:
        """The entry of that name.

        Raises:
            InputError: there is none; see ``unknown``.
        """
        entry = self.find(kind, name)
        if entry is None:
            raise self.unknown(kind, name, self.names(kind))
        return entry

    def unknown(self, kind: str, name: str, known: Iterable[str], key: str | None = None) -> InputError:
        """The error for a name that a kind does not have, with the nearest spelling or the reason why there is none.

        Args:
            known: the names to choose from.
            key: the config key with this name, if not the kind itself.
        """
        if reason := why_excluded(kind, name):
            return InputError(f"{kind}={name}: {reason}")
        if name.startswith(OBJECT):
            return InputError(f"{kind}={name} is an object from Python: give it there again, diffexp.run({kind}=...)")
        known = list(known)
        alias = None if name.lower() in known else alias_of(kind, name)
        if alias in known:
            return InputError(f"{key or kind}={name} is not known; did you mean '{alias}'?")
        files = [file.name for file in self.without_registrations if file.stem != "__init__"]
        more = f"; in plugins, {', '.join(files)} registers nothing" if files else ""
        return InputError(f"{key or kind}={name} is not known{hint(name, known)}{more}")

    def check(self, kind: str, node: Any, path: str | None = None) -> None:
        """Check a config node ``{name, options...}`` of a kind, for the command line as for ``build`` and ``compile``.

        The name must be known, and every option too; an option without a default must be given; a value must be of
        the option's type or equal to its default. With ``_target_``, which names any class or function, and under the
        name of a YAML config without an entry, only the options that all of the kind have are checked.

        Args:
            node: nested containers of any types; ``common`` options of the kind included.
            path: where the node stands in the config (``scheduler``, ``metric.fid``), for messages; without it a
                message about the name is ``scheduler=x is not known``, else ``scheduler.name=x is not known``.

        Raises:
            InputError: the first mistake, in one line with the nearest spelling.
        """
        own = KINDS[kind]
        if not isinstance(node, Mapping) or not {"name", TARGET} & node.keys():
            raise InputError(f"{path or kind}={node} is not a config of a {kind}: it has no name")
        name = as_typed(node.get("name"))
        given = {key: to_containers(value) for key, value in node.items() if key != "name"}
        entry = None if TARGET in node else self.find(kind, name)
        if entry:
            entry.option_set(path).check(given)
            entry.check_packages()
        elif TARGET in node or name in (option for group, option, _ in self.configs if group == kind):
            OptionSet(own.common, path or kind, f"{kind}={name}", accepts_any_option=True).check(given)
        else:
            raise self.unknown(kind, name, self.names(kind), path and f"{path}.name")

    def place_of(self, error: BaseException) -> str:
        """File and line of the plugin that raised an error; empty if none did."""
        return raised_at(error, {entry.source.place for entry in self.entries.values() if not entry.built_in})

    def build(self, kind: str, node: Mapping[str, Any]) -> Any:
        """Build the object of a config node ``{name, options...}``.

        A metric or tracker is called with its options; any other kind is returned as a ``functools.partial`` with them.
        A node with ``_target_`` names any importable class or function instead of a registered one.

        Raises:
            InputError: an unknown name or option, a value of the wrong type, or a plugin that cannot be imported.
        """
        self.check(kind, node)
        own = KINDS[kind]
        given = {key: to_containers(value) for key, value in node.items() if key not in own.reserved}
        if TARGET in node:
            thing = locate(str(node[TARGET]), f"{kind}.{TARGET}")
            check_keywords(kind, thing, given)
        else:
            entry = self.get(kind, str(node["name"]))
            thing = entry.load()
            if entry.accepts_any_option:
                check_keywords(kind, thing, given)
            given = entry.arguments(given)
        return thing(**given) if own.instantiated else functools.partial(thing, **given)


def discover() -> Catalog:
    """Read the catalog from files without running them; the same object again until a file changes.

    Raises:
        InputError: a syntax error in a plugin, a wrong signature, or two plugins of the same name.
    """
    paths = tuple(plugin_paths())
    installed = installed_sources()
    sources = (*installed, *(source for path in paths for source in plugin_sources(path)))
    # A plugin folder may hold configs only.
    folders = [path / "conf" for path in paths if (path / "conf").is_dir()]
    folders += [folder for source in installed if (folder := conf_folder(source))]
    dirs = (conf_dir(), *dict.fromkeys(folders))
    configs = tuple(config for folder in dirs for config in yaml_options(folder))
    found = _catalog(tuple((source, _state(source)) for source in sources), dirs, configs, paths)
    return replace(found, entries={**found.entries, **given_entries()}) if given_entries() else found


@functools.lru_cache(maxsize=8)
def _catalog(
    sources: tuple[tuple[Source, FileState], ...],
    dirs: tuple[Path, ...],
    configs: tuple[tuple[str, str, Path], ...],
    paths: tuple[Path, ...],
) -> Catalog:
    found = _built_in() | {source: _read(source, state) for source, state in sources}
    entries = [entry for own in found.values() for entry in own]
    entries = [_with_free_name(entry, entries) for entry in entries]
    _check_collisions(entries, configs, dirs[0])
    without_registrations = tuple(source.file for source, own in found.items() if source.by_path and not own)
    return Catalog({(entry.kind, entry.name): entry for entry in entries}, dirs, configs, paths, without_registrations)


def yaml_options(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Group, option and file of every YAML config in a conf folder, without Hydra's own groups."""
    for file in sorted(folder.glob("*/*.yaml")):
        if file.parent.name != "hydra":
            yield file.parent.name, file.stem, file


def locate(path: str, what: str) -> Any:
    """Import the object at a dotted path.

    Args:
        what: the config key with this path, for messages.

    Raises:
        InputError: there is no such object.
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
    """Check keyword arguments against a signature.

    Raises:
        InputError: ``thing`` does not accept one of them.
    """
    parameters = inspect.signature(thing).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    names = [parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY]
    for key in given:
        if key not in names:
            raise InputError(unknown_option(kind, key, names))


@functools.cache
def _built_in() -> dict[Source, tuple[Entry, ...]]:
    return {source: _read(source, _state(source)) for source in built_in_sources()}


def _state(source: Source) -> FileState:
    try:
        state = source.file.stat()
    except OSError as error:
        raise InputError(f"{relative(source.file)}: the plugin cannot be read: {error}") from error
    return state.st_mtime_ns, state.st_size


@functools.lru_cache(maxsize=1024)
def _read(source: Source, state: FileState) -> tuple[Entry, ...]:
    """The entries of a file, read again when its time or size has changed."""
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


def _entry(source: Source, found: RegisteredObject) -> Entry:
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
        accepts_any_option=found.form.accepts_any_option,
        source=source,
        is_bare_k_diffusion=found.is_bare_k_diffusion,
    )


def _with_free_name(entry: Entry, entries: list[Entry]) -> Entry:
    """The entry under its full name, ``sample_heun``, if it is a bare k-diffusion sampler and ``heun`` is taken."""
    others = (one for one in entries if one.kind == entry.kind and not one.is_bare_k_diffusion)
    if entry.is_bare_k_diffusion and any(one.name.lower() == entry.name.lower() for one in others):
        return replace(entry, name=entry.qualname)
    return entry


def _check_collisions(entries: list[Entry], configs: tuple[tuple[str, str, Path], ...], own_configs: Path) -> None:
    """Raise InputError if two options of a kind have the same name, but for case, which some file systems ignore."""
    taken: dict[tuple[str, str], tuple[Path, str]] = {}
    for entry in entries:
        key = (entry.kind, entry.name.lower())
        if key in taken:
            raise InputError(f"two {entry.kind}s are called '{entry.name}': {taken[key][1]} and {entry.where}")
        taken[key] = (entry.source.place, entry.where)
    package = Path(__file__).resolve().parents[1]
    for group, option, file in configs:
        folder = file.parents[1]
        place = package if folder == own_configs else folder.parent
        key = (group, option.lower())
        # A plugin may refine its own entry by a YAML file of the same name.
        if key in taken and taken[key][0] != place:
            raise InputError(f"two {group}s are called '{option}': {taken[key][1]} and {relative(file)}")
        taken.setdefault(key, (place, relative(file)))
