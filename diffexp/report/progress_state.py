"""How far the runs of a page are."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from diffexp.sweeps.outcome import names_of
from diffexp.sweeps.results import CellResult
from diffexp.text import quantity

STATUSES = ("failed", "interrupted", "missing", "running", "waiting")
"""Statuses that are counted, besides ``done``."""
OVER = ("done", "failed", "interrupted")
"""Statuses of runs that nobody works on."""


@dataclass(frozen=True)
class State:
    """How far the runs of a page are."""

    summary: str
    """``12 of 48 cells done, 3 running, 33 waiting``."""
    running: str
    """The names of runs that are running."""
    share: float
    """Of the work, between 0 and 1."""
    over: bool
    """Whether no run is running or waiting."""
    written: float
    """Seconds since 1970."""
    every: float
    """Seconds until the page is expected to be written again."""
    version: str = ""
    """The version of the page, where it is served."""


def state_of(cells: Sequence[CellResult], every: float, version: str = "") -> State:
    """How far runs are; those without samples on disk that nobody has begun are ``waiting``.

    Args:
        cells: with the status ``waiting`` in place of ``missing`` where a sweep will still run them.
        every: see ``State``.
    """
    counts = Counter(cell.status for cell in cells)
    parts = [f"{counts['done']} of {quantity(len(cells), 'cell')} done"]
    parts += [f"{counts[status]} {status}" for status in STATUSES if counts[status]]
    running = [(cell, _drawn(cell)) for cell in cells if cell.status == "running"]
    names = [f"{cell.folder.name} ({drawn} of {total} samples)" for cell, (drawn, total) in running]
    shares = sum(drawn / total for _, (drawn, total) in running if total)
    return State(
        summary=", ".join(parts),
        running=names_of(names),
        share=(sum(counts[status] for status in OVER) + shares) / len(cells) if cells else 0.0,
        over=not counts["running"] and not counts["waiting"],
        written=time.time(),
        every=every,
        version=version,
    )


def _drawn(cell: CellResult) -> tuple[int, int]:
    """The samples of a run that are on disk as images of their own, and those that it draws."""
    total = cell.config.get("num_samples")
    with suppress(OSError), os.scandir(cell.folder / "samples") as entries:
        return sum(entry.name.endswith(".png") and entry.name[0] != "." for entry in entries), int(total or 0)
    return 0, int(total or 0)
