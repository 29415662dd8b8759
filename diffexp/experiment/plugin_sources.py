"""The source of the plugins of a run: where it lies, its hash, and a copy in the folder of the run."""

import hashlib
import inspect
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffexp.catalog.discover import Catalog, locate
from diffexp.catalog.kinds import TARGET
from diffexp.catalog.sources import Source
from diffexp.errors import InputError
from diffexp.experiment.configs import choices
from diffexp.files import replace_whole

FOLDER = "plugin_sources"


def save_plugins(folder: Path, config: Mapping[str, Any], catalog: Catalog) -> list[dict[str, Any]]:
    """Copy the files of the plugins that a config chooses into the folder of a run, as they were loaded.

    Returns:
        For each file ``used_for`` (such as ``scheduler=mine``), ``path``, ``sha256`` and ``copy``, its path in the
        folder, for ``run.json``.
    """
    used: dict[Source, list[str]] = {}
    for choice, source in _plugins(config, catalog):
        used.setdefault(source, []).append(choice)
    found: dict[str, dict[str, Any]] = {}
    for source, used_for in used.items():
        for relative, content in source.contents().items():
            sha256 = hashlib.sha256(content).hexdigest()
            path = str(source.place.parent / relative)
            known = found.get(relative)
            if known and known["path"] == path:  # of a folder that several choices are from
                known["used_for"] += [choice for choice in used_for if choice not in known["used_for"]]
                continue
            name = relative if known is None else f"{sha256[:8]}/{relative}"  # plugins of one name
            with replace_whole(folder / FOLDER / name) as temporary:
                temporary.write_bytes(content)
            found[name] = {"used_for": [*used_for], "path": path, "sha256": sha256, "copy": f"{FOLDER}/{name}"}
    return list(found.values())


def code_sha256(config: Mapping[str, Any], catalog: Catalog, kinds: tuple[str, ...]) -> str | None:
    """Hash of the plugins of these kinds that a config chooses; None where it chooses none."""
    own = [source.sha256 for choice, source in _plugins(config, catalog) if choice.partition("=")[0] in kinds]
    return hashlib.sha256(" ".join(own).encode()).hexdigest() if own else None


def _plugins(config: Mapping[str, Any], catalog: Catalog) -> Iterator[tuple[str, Source]]:
    for kind, node in choices(config):
        name, target = str(node.get("name")), node.get(TARGET)
        entry = catalog.find(kind, name)
        if target:
            if source := _source_of_target(f"{kind}.{TARGET}", str(target)):
                yield f"{kind}={target}", source
        elif entry and entry.is_plugin:
            yield f"{kind}={name}", entry.source


def _source_of_target(key: str, target: str) -> Source | None:
    """The file of a class or function that is named by its path; None where it is installed as part of a package."""
    try:
        thing = locate(target, key)
        file = Path(inspect.getfile(thing)).resolve()
    except (InputError, TypeError, OSError):  # raised where the run is built; or no Python file
        return None
    paths = sysconfig.get_paths()
    installed = any(file.is_relative_to(Path(paths[name]).resolve()) for name in ("purelib", "platlib", "stdlib"))
    ours = file.is_relative_to(Path(__file__).resolve().parents[1])
    return None if installed or ours else Source(file, thing.__module__, file, by_path=False)
