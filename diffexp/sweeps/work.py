"""``work.json``: everything that a worker needs to run cells; it then needs neither Hydra nor a command line.

Written whole by the driver, before it starts workers and whenever a search adds cells; read by every worker.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffexp.errors import InputError
from diffexp.experiment.rounds import Round
from diffexp.files import read_json_or_none, write_text
from diffexp.sweeps.cell import Cell

NAME = "work.json"
PAIRS = "__pairs__"
"""The key under which a mapping with keys other than strings is written, which JSON does not have."""


@dataclass(frozen=True)
class Work:
    """The cells of a sweep, or one run that many workers share."""

    folder: Path
    """Of the sweep or of the run; absolute."""
    cells: tuple[Cell, ...]
    """A run that many workers share is a single cell, whose folder is ``folder``."""
    cwd: Path
    """The working folder of the command, which relative paths in configs start from."""
    attempt: int = 1
    """The number of times that the sweep was started, this time included."""
    batch: int | None = None
    """Samples in one call of a model; None: as many as its device likes best."""
    swept: tuple[str, ...] = ()
    """The keys that the sweep varies, as far as they are known beforehand."""
    plugins: tuple[Path, ...] = ()
    """Plugin files and folders, absolute."""
    more: bool = False
    """Whether the driver may add cells, as in a search: workers wait for them as long as it runs."""
    resume: str = ""
    """What continues the sweep, as in ``resume=outputs/multirun/...``; empty if nothing does."""

    @property
    def is_run(self) -> bool:
        """Whether this is one run that many workers share."""
        return [cell.folder for cell in self.cells] == [self.folder]

    def write(self) -> None:
        """Write the file into ``folder``."""
        cells = [
            {
                "number": cell.number,
                "folder": cell.folder.relative_to(self.folder).as_posix(),
                "overrides": cell.overrides,
                "config": _packed(cell.config),
                "round": cell.round and asdict(cell.round),
            }
            for cell in self.cells
        ]
        content = {
            "attempt": self.attempt,
            "cwd": str(self.cwd),
            "batch": self.batch,
            "swept": self.swept,
            "plugins": [str(path) for path in self.plugins],
            "more": self.more,
            "resume": self.resume,
            "cells": cells,
        }
        write_text(self.folder / NAME, json.dumps(content, default=str) + "\n")


def read_work(folder: Path) -> Work:
    """The work file in a folder.

    Raises:
        InputError: there is none, or it is damaged.
    """
    folder = folder.expanduser().absolute()
    found = read_json_or_none(folder / NAME)
    if found is None:
        raise InputError(_no_work(folder))
    try:
        cells = tuple(
            Cell(
                one["number"],
                _unpacked(one["config"]),
                folder / one["folder"],
                tuple(one["overrides"]),
                Round(**one["round"]) if one.get("round") else None,
            )
            for one in found.pop("cells")
        )
        plugins = tuple(map(Path, found.pop("plugins")))
        return Work(folder, cells, Path(found.pop("cwd")), plugins=plugins, swept=tuple(found.pop("swept")), **found)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / NAME} is damaged; resume the sweep, which writes it anew") from error


def _no_work(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is not a folder; give the folder of a sweep"
    if (folder / NAME).exists():
        return f"{folder / NAME} is damaged; resume the sweep, which writes it anew"
    return (
        f"{folder} has no {NAME}: give the folder of a sweep that was started with workers=... or hydra/launcher=local"
    )


def _packed(value: Any) -> Any:
    """The value with pairs in place of mappings whose keys are not all strings."""
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _packed(item) for key, item in value.items()}
        return {PAIRS: [[key, _packed(item)] for key, item in value.items()]}
    return [_packed(item) for item in value] if isinstance(value, list | tuple) else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        pairs = value[PAIRS] if value.keys() == {PAIRS} else value.items()
        return {key: _unpacked(item) for key, item in pairs}
    return [_unpacked(item) for item in value] if isinstance(value, list) else value
