"""``sweep.json``: everything needed to resume a sweep."""

import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from diffexp.errors import InputError
from diffexp.files import read_json, write_json

NAME = "sweep.json"
LAUNCHER = re.compile(r"hydra[/.]launcher[=.]|workers=")
"""Words that change where the cells of a sweep run, and nothing else."""


@dataclass(frozen=True)
class SweepRecord:
    """The command of a sweep and its cells."""

    overrides: list[str]
    """The words of the command line."""
    cells: list[list[str]] | None
    """The overrides of every cell; None if a sweeper determines them while it runs."""
    config_dir: str | None = None
    attempts: int = 1
    """The number of times that the sweep was started, this time included."""

    @property
    def command(self) -> str:
        return shlex.join(["python", "-m", "diffexp", "-m", *self.overrides])

    @property
    def swept(self) -> frozenset[str]:
        """The keys whose values differ between cells, as far as the cells are known."""
        values: dict[str, set[str]] = {}
        for word in (word for cell in self.cells or () for word in cell):
            key, _, value = word.lstrip("+").partition("=")
            values.setdefault(key, set()).add(value)
        return frozenset(key for key, found in values.items() if len(found) > 1)

    def write(self, folder: Path) -> None:
        write_json(folder / NAME, asdict(self) | {"command": self.command})


def read_sweep(folder: Path) -> SweepRecord | None:
    """The record in a folder; None if there is none.

    Raises:
        InputError: it is damaged.
    """
    if not (folder / NAME).is_file():
        return None
    found = read_json(folder / NAME)
    cells = found.get("cells")
    lists = [found.get("overrides"), *(cells if isinstance(cells, list) else [])]
    if not all(isinstance(words, list) for words in lists) or not isinstance(cells, list | None):
        raise InputError(f"{folder / NAME} is damaged; start the sweep again in another folder")
    return SweepRecord(**{key: found[key] for key in SweepRecord.__dataclass_fields__ if key in found})
