"""What a tracker is, and the wrapper that keeps a failing one from ending a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunInfo:
    """What is known about a run when it starts."""

    folder: Path
    """The run's output folder."""
    config: dict[str, Any]
    """The composed config, as plain containers."""
    name: str
    group: str | None
    """The sweep that the run is part of, or None."""
    job_type: str
    tags: list[str]
    notes: str | None
    sweep: bool
    """Whether other runs may follow or be alive in the same process."""


@dataclass(frozen=True)
class SampleRow:
    """One finished sample."""

    index: int
    caption: str
    seed: int
    path: Path | None
    """The image file as written; None for points, which have none."""


@dataclass(frozen=True)
class Curves:
    """Lines of a chart: a quality over a cost."""

    title: str
    x_name: str
    names: list[str]
    xs: list[list[float]]
    """For each name the costs, increasing."""
    ys: list[list[float]]


@dataclass(frozen=True)
class Comparison:
    """What a finished sweep says about its cells."""

    info: RunInfo
    """Of the comparison as a run of its own, in the folder and the group of the sweep."""
    columns: list[str]
    rows: list[list[Any]]
    """A row a cell, a value a column; a ``Path`` is an image file."""
    curves: list[Curves]
    report: Path
    """The page, ``report.html``."""
    files: list[Path]
    """The page and the tables."""


class Tracker(Protocol):
    """Follows one run. The calls come in this order: ``start``, any of the ``log_*``, ``finish``.

    A tracker plugin is a class or factory marked ``@diffexp.tracker`` whose keyword-only parameters are its options.
    Whatever it raises is logged once, and the run goes on without it. A tracker may also have a method
    ``compare(comparison: Comparison)``: at the end of a sweep an object is made for nothing but that call.
    """

    @property
    def run_id(self) -> str | None:
        """The run's name on the tracker's side, once started; None if it has none."""
        ...

    def start(self, info: RunInfo) -> None: ...

    def log_step(self, step: int, values: dict[str, float]) -> None:
        """Scalars of one solver step; steps do not decrease within a batch of samples."""
        ...

    def log_images(self, key: str, paths: dict[str, Path]) -> None:
        """Image files (PNG or GIF) under ``key``, by caption."""
        ...

    def log_samples(self, rows: list[SampleRow]) -> None:
        """All samples of the run, as a table."""
        ...

    def finish(self, summary: dict[str, float], status: str) -> None:
        """Close the run with its metrics and its status: ``done``, ``failed`` or ``interrupted``."""
        ...


class Guarded:
    """A tracker that never raises: the first error of the one inside is logged and switches it off."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker: Tracker | None = tracker
        self._run_id: str | None = None

    @property
    def run_id(self) -> str | None:
        """Stays known after the tracker was switched off."""
        return self._run_id

    def start(self, info: RunInfo) -> None:
        self._try("start", lambda tracker: tracker.start(info))
        self._try("run_id", self._remember_id)

    def log_step(self, step: int, values: dict[str, float]) -> None:
        self._try("log_step", lambda tracker: tracker.log_step(step, values))

    def log_images(self, key: str, paths: dict[str, Path]) -> None:
        self._try("log_images", lambda tracker: tracker.log_images(key, paths))

    def log_samples(self, rows: list[SampleRow]) -> None:
        self._try("log_samples", lambda tracker: tracker.log_samples(rows))

    def finish(self, summary: dict[str, float], status: str) -> None:
        self._try("finish", lambda tracker: tracker.finish(summary, status))

    def compare(self, comparison: Comparison) -> None:
        """Of a sweep; does nothing for trackers that have no such method."""
        self._try("compare", lambda tracker: getattr(tracker, "compare", lambda _: None)(comparison))

    def _remember_id(self, tracker: Tracker) -> None:
        self._run_id = tracker.run_id

    def _try(self, what: str, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:
            log.warning(
                "tracker %s failed in %s, the run goes on without it: %s: %s",
                type(self._tracker).__name__,
                what,
                type(error).__name__,
                error,
            )
            log.debug("the tracker's traceback", exc_info=True)
            self._tracker = None
