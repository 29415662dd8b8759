"""The protocol of trackers, and a wrapper that keeps a failing tracker from ending a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from diffexp.errors import one_line

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunInfo:
    """A run at its start."""

    folder: Path
    """The run's output folder."""
    config: dict[str, Any]
    """The composed config, as plain containers."""
    name: str
    group: str | None
    """The sweep of the run, or None."""
    job_type: str
    tags: list[str]
    notes: str | None
    sweep: bool
    """Whether other runs may follow or be active in the same process."""


@dataclass(frozen=True)
class SampleRow:
    """One finished sample."""

    index: int
    caption: str
    seed: int
    path: Path | None
    """The image file; None for points, and for images that are in shards (``samples=tar``)."""
    load: Callable[[], Image.Image] | None = None
    """Reads the image from wherever it is; None for points."""


@dataclass(frozen=True)
class Curves:
    """Lines of a chart of a quality over a cost."""

    title: str
    x_name: str
    names: list[str]
    xs: list[list[float]]
    """Costs of each line, increasing."""
    ys: list[list[float]]


@dataclass(frozen=True)
class Comparison:
    """Results of a finished sweep."""

    info: RunInfo
    """The comparison as a run of its own, in the folder and the group of the sweep."""
    columns: list[str]
    rows: list[list[Any]]
    """One row per cell, one value per column; a ``Path`` is an image file."""
    curves: list[Curves]
    report: Path
    """The page, ``report.html``."""
    files: list[Path]
    """The page and the tables."""


class Tracker(Protocol):
    """Logs one run. The order of calls is ``start``, any of the ``log_*``, ``finish``.

    A tracker plugin is a class or factory marked ``@diffexp.tracker`` whose keyword-only parameters are its options.
    A call that raises, which is logged, costs itself alone; after one of ``start`` there are no more. A tracker may
    also have a method ``compare(comparison: Comparison)``, which is called at the end of a sweep on an object built
    for that call.
    """

    @property
    def run_id(self) -> str | None:
        """Identifier of the run in the tracker, once started; None without one."""
        ...

    def start(self, info: RunInfo) -> None:
        """Begin the run."""
        ...

    def log_step(self, step: int, values: dict[str, float]) -> None:
        """Log scalars of one solver step; steps do not decrease within a batch of samples."""
        ...

    def log_images(self, key: str, paths: dict[str, Path]) -> None:
        """Log image files (PNG or GIF) under ``key``, by caption."""
        ...

    def log_samples(self, rows: Sequence[SampleRow]) -> None:
        """Log the samples of the run, as a table; the rows are made when they are read, because they may be many."""
        ...

    def finish(self, summary: dict[str, float], status: str) -> None:
        """Close the run with its metrics and its status: ``done``, ``failed`` or ``interrupted``."""
        ...


class Guarded:
    """A tracker that never raises: it logs the first error of each method of the wrapped one.

    A call that fails costs itself alone; without a ``start`` that succeeds all others are ignored.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker: Tracker | None = tracker
        self._run_id: str | None = None
        self._failed: set[str] = set()

    @property
    def run_id(self) -> str | None:
        """Identifier of the run, also after an error."""
        return self._run_id

    def start(self, info: RunInfo) -> None:
        self._try("start", lambda tracker: tracker.start(info))
        self._try("run_id", self._read_run_id)

    def log_step(self, step: int, values: dict[str, float]) -> None:
        self._try("log_step", lambda tracker: tracker.log_step(step, values))

    def log_images(self, key: str, paths: dict[str, Path]) -> None:
        self._try("log_images", lambda tracker: tracker.log_images(key, paths))

    def log_samples(self, rows: Sequence[SampleRow]) -> None:
        self._try("log_samples", lambda tracker: tracker.log_samples(rows))

    def finish(self, summary: dict[str, float], status: str) -> None:
        self._try("finish", lambda tracker: tracker.finish(summary, status))

    def compare(self, comparison: Comparison) -> None:
        """Log the results of a sweep; without effect for trackers that have no such method."""
        self._try("compare", lambda tracker: getattr(tracker, "compare", lambda _: None)(comparison))

    def _read_run_id(self, tracker: Tracker) -> None:
        self._run_id = tracker.run_id

    def _try(self, what: str, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except (Exception, SystemExit) as error:
            if what not in self._failed:
                told = type(self._tracker).__name__, what, one_line(error)
                log.warning("tracker %s failed in %s, the run goes on without it: %s", *told)
                log.debug("the tracker's traceback", exc_info=True)
            self._failed.add(what)
            if what == "start":
                self._tracker = None
