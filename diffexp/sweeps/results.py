"""``results.csv``: one row per cell of a multirun."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffexp.catalog.types import flat
from diffexp.components.metrics.traits import needed, needed_by
from diffexp.experiment.configs import differing_keys
from diffexp.experiment.resume import read_earlier
from diffexp.experiment.rounds import Round, samples_of
from diffexp.experiment.summary import HIGH, LOW, read_metrics
from diffexp.files import read_json, read_yaml, write_text

NAME = "results.csv"
LATEST = "latest"
"""Name of the link to the last run or sweep, in the folder of all outputs."""


@dataclass(frozen=True)
class CellResult:
    """One run of a multirun, read back from its folder."""

    folder: Path
    overrides: tuple[str, ...]
    status: str
    error: str | None
    config: Mapping[str, Any]
    """Flat: ``{"scheduler.name": "ddim", ...}``."""
    metrics: Mapping[str, Any]
    record: Mapping[str, Any]
    """``run.json``; empty where there is none."""
    members: tuple["CellResult", ...] = ()
    """The finished runs from different seeds whose means the metrics are; see ``diffexp.sweeps.replicates``."""

    @property
    def runs(self) -> "tuple[CellResult, ...]":
        """The runs themselves: ``members``, or this one."""
        return self.members or (self,)

    @property
    def by_seed(self) -> "dict[Any, CellResult]":
        """The runs by seed."""
        return {run.config.get("seed"): run for run in self.runs}


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run; one that failed before it began has only the config that Hydra has written."""
    return (folder / ".hydra").is_dir() or read_earlier(folder) is not None


def _is_link(folder: Path) -> bool:
    """Whether a folder is the link to the last run, which would count twice."""
    return folder.name == LATEST and folder.is_symlink()


def read_cells(sweep: Path, read: "Callable[[Path], CellResult] | None" = None) -> list[CellResult]:
    """Read the cells of a sweep in the order of their numbers; one that never began is ``missing``, without folder.

    Args:
        read: reads a cell from its folder; by default ``read_cell``.
    """
    read = read or read_cell
    found = {cell_number(folder): read(folder) for folder in sweep.glob("*") if is_run(folder) and not _is_link(folder)}
    begun = {number for number, _ in found}
    for number, overrides in enumerate(read_json(sweep / "sweep.json").get("cells") or []):
        if number not in begun:
            folder = sweep / str(number)
            found[cell_number(folder)] = CellResult(folder, tuple(overrides), "missing", None, {}, {}, {})
    return [found[key] for key in sorted(found)]


def write_results(sweep: Path, cells: Sequence[CellResult] | None = None) -> Path | None:
    """Write the table; returns None if there is no cell yet.

    Columns: ``cell``, ``overrides``, every config key in which the cells differ, ``status``, ``error``, with
    ``stop=decided`` the number of ``samples`` and why the cell ``left``, ``few_samples`` with the names of metrics that
    take more samples to be ranked, where there are some, every metric, ``folder`` (relative to the sweep).

    Args:
        cells: those of ``read_cells(sweep)``, where they have been read already.
    """
    cells = read_cells(sweep) if cells is None else cells
    if not cells:
        return None
    keys = differing_keys([cell.config for cell in cells if cell.config])
    metrics = list(dict.fromkeys(name for cell in cells for name in cell.metrics))
    rounds = [Round.of(cell.record) for cell in cells]
    given, known = ("samples", "left") if any(rounds) else (), needed()
    few = [_few(cell, metrics, known) for cell in cells]
    given = (*given, "few_samples") if any(few) else given
    taken = {*given, "cell", "overrides", "status", "error", "folder", *metrics}
    titles = {key: f"config.{key}" if key in taken else key for key in keys}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["cell", "overrides", *titles.values(), "status", "error", *given, *metrics, "folder"])
    for cell, now, names in zip(cells, rounds, few):
        own = ((now.samples, now.why) if now else ("", "")) if any(rounds) else ()
        own = (*own, " ".join(names)) if any(few) else own
        writer.writerow(
            [
                cell_number(cell.folder)[0],
                " ".join(cell.overrides),
                *(_shown(cell.config.get(key)) for key in keys),
                cell.status,
                cell.error or "",
                *own,
                *(_shown(cell.metrics.get(name)) for name in metrics),
                cell.folder.name if cell.folder.is_dir() else "",
            ]
        )
    write_text(sweep / NAME, text.getvalue())
    return sweep / NAME


def read_cell(folder: Path) -> CellResult:
    """Read a run or a cell from its folder; unreadable files count as missing."""
    run = read_json(folder / "run.json")
    overrides = read_yaml(folder / ".hydra" / "overrides.yaml")
    # A cell that failed before it began has no config in its record, only the one that Hydra has written.
    config = run.get("config") or read_yaml(folder / ".hydra" / "config.yaml")
    return CellResult(
        folder=folder,
        overrides=tuple(map(str, overrides if isinstance(overrides, list) else ())),
        status=run.get("status", "missing"),
        error=run.get("error"),
        config=flat(config) if isinstance(config, Mapping) else {},
        metrics=read_metrics(folder),
        record=run,
    )


def _few(cell: CellResult, metrics: Sequence[str], known: Mapping[str, int]) -> list[str]:
    """The metrics that a cell has of fewer samples than they need."""
    count = samples_of(cell.record)
    names = [name for name in metrics if name in cell.metrics and not name.endswith((LOW, HIGH))]
    return [name for name in names if 0 < count < needed_by(name, known)]


def cell_number(folder: Path) -> tuple[int, str]:
    """The number of a cell, by which cells are sorted, and the name of its folder."""
    head = folder.name.partition("_")[0]
    return (int(head) if head.isdigit() else 1 << 30, folder.name)


def _shown(value: Any) -> str:
    return "" if value is None else json.dumps(value) if isinstance(value, list | dict) else str(value)
