"""The protocol of trackers, and what they log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from PIL import Image


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
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the run besides its config: device, dtype, evaluations, hashes, commit, plugins."""
    earlier_id: str | None = None
    """Where the run continues one that was interrupted, in its folder: the ``run_id`` of that one."""


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
    """The cost, in words."""
    names: list[str]
    xs: list[list[float]]
    """Costs of each line, increasing."""
    ys: list[list[float]]
    metric: str = ""
    """The quality, by its name in ``metrics.json``."""
    cost: str = ""
    """Likewise."""


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
    All calls for a run come from one thread of the tracker's own, while the run goes on: a slow one delays nothing but
    the end of the run. A call that raises, which is logged, costs itself alone; after one of ``start`` there are no
    more. A tracker may also have the methods of ``LiveTracker``.
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


class LiveTracker(Tracker, Protocol):
    """A tracker that logs more, and while the run samples; it may have any of these methods, and need not have all."""

    def log_preview(self, step: int, image: Image.Image) -> None:
        """Log the predicted x0 of a few samples at a solver step, as one image; about once a second, or less often."""
        ...

    def log_batch(self, rows: Sequence[SampleRow], done: int) -> None:
        """Log samples that are finished, as soon as they are: of a run the first 108.

        Args:
            done: the number of samples of the run that are finished.
        """
        ...

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        """Log metrics of the first ``samples`` samples, while there are more to come, and once of all."""
        ...

    def log_facts(self, facts: Mapping[str, Any]) -> None:
        """Log facts that sampling has shown, as ``RunInfo.facts``: those with the same names are replaced."""
        ...

    def log_files(self, name: str, files: Mapping[str, Path]) -> None:
        """Log files of the run that are neither images nor metrics: the plan, the source of plugins.

        Args:
            name: of the collection: ``plan``, ``plugins``.
            files: by path within it.
        """
        ...

    def log_media(self, files: Mapping[str, Path]) -> None:
        """Log the videos (MP4 or GIF) or sounds (WAV) of the first samples, by caption, once the run is sampled."""
        ...

    def compare(self, comparison: Comparison) -> None:
        """Log the results of a sweep that is finished; called on an object made for it, which has no run."""
        ...

    @staticmethod
    def sync_command(folder: Path) -> str | None:
        """The command that uploads what runs below a folder logged offline; None where there is nothing."""
        ...
