"""The page of runs that are on their way, made anew at little cost."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from diffexp.experiment.lock import RenewalTimes
from diffexp.experiment.stores.images import StoredImages
from diffexp.report.collect import cells_of_sweep
from diffexp.report.comparison import Difference
from diffexp.report.content import Report
from diffexp.report.page import page_html
from diffexp.report.progress_state import State, state_of
from diffexp.report.thumbnails import Thumbnails, make_thumbnails, stored_previews
from diffexp.sweeps.results import CellResult, read_cell
from diffexp.sweeps.values import Quality

UNCHANGED_SECONDS = 30.0
"""How often a page that has not changed is written, so that it shows that the sweep goes on."""
LARGE = 192
"""Longer side in pixels from which images are shown smaller than they are."""
NOT_COMPARED = "nothing yet; pairs are compared when no cell is running or waiting"


class RunCache:
    """Reads runs, and again only those whose files have changed."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Signature, CellResult, StoredImages]] = {}
        self._locks = RenewalTimes()

    def read(self, folder: Path) -> CellResult:
        """Read a run; one that says that it is running, while no process holds its folder, is interrupted."""
        found = _signature(folder)
        known = self._known.get(folder)
        if known is None or known[0] != found:
            known = self._known[folder] = found, read_cell(folder), stored_previews(folder)
        cell = known[1]
        return replace(cell, status="interrupted") if cell.status == "running" and not self.is_held(folder) else cell

    def is_held(self, folder: Path) -> bool:
        """Whether a process writes into a folder, a run or a sweep."""
        return self._locks.is_held(folder)

    def images(self, folder: Path) -> StoredImages:
        """The first images of a run that was read."""
        return self._known[folder][2] if folder in self._known else stored_previews(folder)


Signature = tuple[tuple[int, int, int], ...]
"""What changes when files do: their inodes, times and sizes."""


def _signature(folder: Path) -> Signature:
    found = []
    for name in ("run.json", "metrics.json", "samples", ".hydra"):
        with suppress(OSError):
            state = os.stat(folder / name)
            found.append((state.st_ino, state.st_mtime_ns, state.st_size))
    return tuple(found)


class LiveReport(Report):
    """The page of runs of which some may be running: images are links to the files of the runs.

    Pairs are compared when all runs are over.

    Args:
        cells: at least one.
        out: see ``Report``.
        state: how far the runs are.
        images: the first images of the run in a folder.
    """

    def __init__(
        self, cells: Sequence[CellResult], out: Path, state: State, images: Callable[[Path], StoredImages]
    ) -> None:
        super().__init__(cells, out)
        self.live = self._state = state
        self._images = images
        self._urls: dict[Path, str] = {}

    @cached_property
    def thumbnails(self) -> Thumbnails:
        return make_thumbnails(self.cells, link=self._link_to, stored=self._images)

    def link(self, folder: Path) -> str:
        if folder not in self._urls:
            self._urls[folder] = super().link(folder)
        return self._urls[folder]

    def _link_to(self, file: Path) -> str:
        return f"{self.link(file.parents[1])}/{file.parent.name}/{file.name}"

    @cached_property
    def pairs(self) -> tuple[list[tuple[int, int]], str]:
        return super().pairs if self._state.over else ([], NOT_COMPARED)

    @cached_property
    def comparisons(self) -> list[tuple[Quality, list[Difference]]]:
        return super().comparisons if self._state.over else [(quality, []) for quality in self.qualities]

    @property
    def shrunk(self) -> bool:
        return self.thumbnails.side > LARGE


def with_waiting(cells: Sequence[CellResult]) -> list[CellResult]:
    """The cells of a sweep that is running: those that have not begun are ``waiting``."""
    return [replace(cell, status="waiting") if cell.status == "missing" else cell for cell in cells]


class SweepPage:
    """The page of a running sweep, made anew where there is anything new.

    Args:
        sweep: folder of the sweep.
        file: the page.
    """

    def __init__(self, sweep: Path, file: Path) -> None:
        self._sweep = sweep
        self._file = file
        self._cache = RunCache()
        self._shown: object = None
        self._made = 0.0

    def html(self, every: float) -> str | None:
        """The page; None if nothing has changed and the last one is not old.

        Args:
            every: see ``State``.
        """
        cells = with_waiting(cells_of_sweep(self._sweep, self._cache.read))
        shown = cells, [tuple(self._cache.images(cell.folder)) for cell in cells]
        due = time.monotonic() >= self._made + UNCHANGED_SECONDS
        if not cells or (shown == self._shown and not due):
            return None
        self._shown, self._made = shown, time.monotonic()
        return page_html(LiveReport(cells, self._file, state_of(cells, every), self._cache.images))
