"""Files that may register something: the package's own, plugin files and folders, installed packages.

Plugin files are loaded by path under a private module name and never through ``sys.path``, so that no file name of a
plugin shadows a module.
"""

import hashlib
import os
import sys
import traceback
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from diffexp.catalog.kinds import KINDS
from diffexp.catalog.scan import relative
from diffexp.errors import InputError

VARIABLE = "DIFFEXP_PLUGINS"
ENTRY_POINTS = "diffexp.plugins"


@dataclass(frozen=True)
class Source:
    """One Python file that may register something, and how it is imported."""

    file: Path
    module: str
    """Dotted name; private for a file that is loaded by path."""
    place: Path
    """The package, plugin file or plugin folder that it belongs to."""
    by_path: bool = True
    """Whether it is a plugin, whose relative imports are those of the files beside it."""

    def load(self) -> ModuleType:
        """Import the file.

        Raises:
            InputError: it cannot be imported; with file, line and the original error.
        """
        if self.module in sys.modules:
            return sys.modules[self.module]
        if not self.by_path:
            return import_module(self.module)
        try:
            self.contents()  # as they are when they are run
            _load_package(self.module.rpartition(".")[0] or self.module, self.file.parent, self.place.is_dir())
            if self.module not in sys.modules:
                _execute(self.module, self.file)
        except (Exception, SystemExit) as error:
            raise InputError(_import_failure(self.file, error)) from error
        return sys.modules[self.module]

    def contents(self) -> Mapping[str, bytes]:
        """The files of a plugin by path, relative to the folder that it lies in; of an installed package this file.

        Read once per process, before the plugin is loaded, which happens once too: later changes do not count.
        """
        return _contents(self.place, None if self.by_path and self.place.is_dir() else self.file)

    @property
    def sha256(self) -> str:
        """SHA-256 of ``contents``; of a single file its own."""
        return hashlib.sha256(b"\0".join(self.contents().values())).hexdigest()


@cache
def _contents(place: Path, file: Path | None) -> Mapping[str, bytes]:
    if file is not None:
        return {file.name: file.read_bytes()}
    found = (path for path in sorted(place.rglob("*")) if path.suffix in (".py", ".yaml") and path.is_file())
    return {path.relative_to(place.parent).as_posix(): path.read_bytes() for path in found}


@cache
def built_in_sources() -> tuple[Source, ...]:
    """The files of the built-in components; listed once, because they do not change while diffexp runs."""
    package = Path(__file__).resolve().parents[1]
    files = (file for kind in KINDS.values() for file in sorted((package / "components" / kind.folder).glob("*.py")))
    return tuple(Source(f, _module_of(f, package), package, by_path=False) for f in files if f.is_file())


def _module_of(file: Path, package: Path) -> str:
    name = ".".join(["diffexp", *file.relative_to(package).with_suffix("").parts])
    return name.removesuffix(".__init__")


def plugin_paths() -> list[Path]:
    """Absolute paths of the plugin files and folders: those in DIFFEXP_PLUGINS, else those in ./plugins.

    Raises:
        InputError: DIFFEXP_PLUGINS names a path that does not exist.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        return _inside(Path.cwd() / "plugins") if Path("plugins").is_dir() else []
    found: list[Path] = []
    for text in filter(None, given.split(os.pathsep)):
        path = Path(text).absolute()
        if not path.exists():
            raise InputError(f"{VARIABLE} names {text}, which does not exist")
        found += [path] if _is_one_plugin(path) else _inside(path)
    return list(dict.fromkeys(found))


def resolved_paths(paths: Iterable[Path]) -> list[Path]:
    """The paths of plugins as DIFFEXP_PLUGINS must name them for a worker to find the same."""
    found = [[path] if _is_one_plugin(path) else [source.file for source in plugin_sources(path)] for path in paths]
    return [file for files in found for file in files]


def _is_one_plugin(path: Path) -> bool:
    """Whether a path in DIFFEXP_PLUGINS is a plugin, and not a folder of plugins."""
    return path.is_file() or (path / "__init__.py").is_file() or (path / "conf").is_dir()


def plugin_sources(path: Path) -> list[Source]:
    """The files of one plugin."""
    folder = path.parent if path.is_file() else path
    private = f"_diffexp_plugin_{zlib.crc32(str(folder).encode()):08x}_{folder.stem.replace('.', '_')}"
    files = [path] if path.is_file() else [file for file in sorted(path.glob("*.py")) if _is_plugin_file(file)]
    if path.is_dir() and (path / "__init__.py").is_file():
        files.insert(0, path / "__init__.py")
    stems = [file.stem.replace(".", "_") for file in files]
    names = [private if stem == "__init__" else f"{private}.{stem}" for stem in stems]
    return [Source(file, name, path) for file, name in zip(files, names, strict=True)]


def installed_sources() -> tuple[Source, ...]:
    """Files of installed packages that name their modules under the entry-point group ``diffexp.plugins``.

    Raises:
        InputError: an entry point names a module that does not exist.
    """
    states = tuple((path, Path(path).stat().st_mtime_ns) for path in sys.path if Path(path).is_dir())
    found = {source.file: source for module in _entry_points(states) for source in _module_sources(module)}
    return tuple(found.values())


@lru_cache(maxsize=2)
def _entry_points(states: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    """The modules of all entry points; looked up again when a folder on ``sys.path`` has changed."""
    return tuple(entry.module for entry in entry_points(group=ENTRY_POINTS))


def conf_folder(source: Source) -> Path | None:
    """The configs of a plugin folder or an installed package, if it has any."""
    folder = source.place / "conf"
    return folder if source.place.is_dir() and folder.is_dir() else None


def _inside(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if (path.is_dir() and not path.name.startswith(("_", "."))) or _is_plugin_file(path)
    ]


def _is_plugin_file(path: Path) -> bool:
    skipped = path.name.startswith(("_", ".", "test_")) or path.name == "conftest.py"
    return path.suffix == ".py" and path.is_file() and not skipped


def _module_sources(module: str) -> list[Source]:
    """The file of a module or the files of a package, without importing it."""
    path: list[str] | None = None
    spec = None
    parts = module.split(".")
    for index in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: index + 1]), path)
        if spec is None:
            raise InputError(f"an installed package names {module} under {ENTRY_POINTS}, which does not exist")
        path = list(spec.submodule_search_locations or [])
    if path:
        files = [Path(path[0], "__init__.py"), *sorted(Path(path[0]).glob("*.py"))]
        names = {file: module if file.stem == "__init__" else f"{module}.{file.stem}" for file in files}
        return [Source(f, n, Path(path[0]), by_path=False) for f, n in names.items() if f.is_file()]
    if spec is None or spec.origin is None:
        return []
    return [Source(Path(spec.origin), module, Path(spec.origin), by_path=False)]


def _load_package(name: str, folder: Path, whole: bool) -> None:
    """Make a folder the package of its files; ``whole``: with its ``__init__.py``, if it has one."""
    if name in sys.modules:
        return
    if whole and (folder / "__init__.py").is_file():
        _execute(name, folder / "__init__.py", [str(folder)])
        return
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


def _execute(name: str, file: Path, search: list[str] | None = None) -> None:
    spec = spec_from_file_location(name, file, submodule_search_locations=search)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def raised_at(error: BaseException, places: Collection[Path]) -> str:
    """The innermost frame of an error in these files or folders, as "plugins/mine.py:12"; empty if there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if any(place in (file, *file.parents) for place in places):
            return f"{relative(file)}:{frame.lineno}"
    return ""


def _import_failure(file: Path, error: BaseException) -> str:
    """One line: the innermost line of the plugin's own code, and the error."""
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{relative(Path(error.filename))}:{error.lineno}"
    else:
        where = raised_at(error, [file.parent]) or relative(file)
    message = " ".join(str(error).split())
    return f"{where}: the plugin cannot be imported: {type(error).__name__}: {message}"


@cache
def default_choices() -> dict[str, Any]:
    """The defaults list of ``conf/config.yaml``: the choice, or the list of choices, of each group."""
    import yaml  # here, because a start of the command does without

    content = yaml.safe_load((conf_dir() / "config.yaml").read_text(encoding="utf-8"))
    return {group: choice for item in content["defaults"] if isinstance(item, dict) for group, choice in item.items()}


def conf_dir() -> Path:
    """The folder of configs: inside the package of a wheel, else the ``conf/`` of the checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"
