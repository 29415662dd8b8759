"""Trackio, Hugging Face's tracker, whose dashboard is on this machine: nothing is uploaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexp import tracker
from diffexp.components.trackers.base import Comparison, RunInfo, SampleRow

if TYPE_CHECKING:
    import trackio
    from PIL import Image

log = logging.getLogger(__name__)

MAX_ROWS = 1000
"""Samples of the table."""
MAX_IMAGES = 108
"""Samples with images."""


@tracker(name="trackio", requires=["trackio"])
class TrackioTracker:
    """A Trackio run beside the run folder, live; ``trackio show --project NAME`` opens the dashboard.

    The step of a scalar of a solver step is that step; of a metric, the number of samples that it is computed from.

    Args:
        project: Trackio project.
    """

    def __init__(self, *, project: str = "diffexp") -> None:
        self.project = project
        self._run: trackio.Run | None = None
        self._shown: set[int] = set()
        """Indices of the samples whose images were logged."""

    @property
    def run_id(self) -> str | None:
        return str(self._run.id) if self._run else None

    @property
    def run(self) -> trackio.Run:
        if self._run is None:
            raise RuntimeError("the tracker has not been started")
        return self._run

    def start(self, info: RunInfo) -> None:
        import trackio
        import trackio.run
        import trackio.utils

        for module in (trackio, trackio.run, trackio.utils):  # they print, and have no setting for it
            vars(module)["print"] = _note
        config = {
            **info.config,
            "facts": dict(info.facts),
            "tags": info.tags,
            "notes": info.notes,
            "job_type": info.job_type,
        }
        self._run = trackio.init(
            self.project,
            info.name,
            group=info.group,
            config=config,
            embed=False,
            auto_log_gpu=False,  # costs of the run are metrics
            auto_log_cpu=False,
        )
        if not info.sweep:
            log.info("Trackio: trackio show --project %s", self.project)

    def log_step(self, step: int, values: dict[str, float]) -> None:
        self.run.log({f"steps/{name}": value for name, value in values.items()}, step=step)

    def log_preview(self, step: int, image: Image.Image) -> None:
        self.run.log({"steps/x0": _image(image)}, step=step)

    def log_images(self, key: str, paths: dict[str, Path]) -> None:
        for caption, path in paths.items():
            self.run.log({f"{key}/{caption}": _medium(path, caption)})

    def log_batch(self, rows: Sequence[SampleRow], done: int) -> None:
        self._log_shown(rows, done)

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=samples)

    def log_samples(self, rows: Sequence[SampleRow]) -> None:
        import trackio

        data = [[row.index, row.caption, str(row.seed), row.path.name if row.path else None] for row in rows[:MAX_ROWS]]
        self.run.log({"samples_table": trackio.Table(columns=["index", "caption", "seed", "file"], data=data)})
        self._log_shown([row for row in rows[:MAX_IMAGES] if row.index not in self._shown], len(rows))

    def log_files(self, name: str, files: Mapping[str, Path]) -> None:
        import trackio

        artifact = trackio.Artifact(name, type="code" if name == "plugins" else name)
        for path, file in files.items():
            artifact.add_file(str(file), name=path)
        self.run.log_artifact(artifact)

    def log_media(self, files: Mapping[str, Path]) -> None:
        for caption, path in files.items():
            self.run.log({f"media/{caption}": _medium(path, caption)})

    def finish(self, summary: dict[str, float], status: str) -> None:
        self.run.log({"status": status, **{f"summary/{name}": value for name, value in summary.items()}})
        self.run.finish()

    def compare(self, comparison: Comparison) -> None:
        """Log a run of its own in the sweep's group: results with images, and the report and its tables as files."""
        import trackio

        self.start(comparison.info)
        data = [[_image(one) if isinstance(one, Path) else one for one in row] for row in comparison.rows]
        self.run.log({"results": trackio.Table(columns=comparison.columns, data=data)})
        self.log_files("comparison", {file.name: file for file in comparison.files})
        self.finish({"cells": len(comparison.rows)}, "done")

    def _log_shown(self, rows: Sequence[SampleRow], done: int) -> None:
        import trackio

        data: list[list[Any]] = []
        for row in rows:
            source = row.path or (row.load() if row.load else None)
            if source and len(self._shown) < MAX_IMAGES:
                self._shown.add(row.index)
                data.append([row.index, row.caption, str(row.seed), _image(source)])
        if data:
            table = trackio.Table(columns=["index", "caption", "seed", "image"], data=data)
            self.run.log({"samples": table}, step=done)


def _image(source: Path | Image.Image, caption: str | None = None) -> trackio.Image:
    import trackio

    return trackio.Image(source, caption=caption)


def _medium(path: Path, caption: str) -> Any:
    import trackio

    if path.suffix == ".wav":
        return trackio.Audio(str(path), caption=caption, format="wav")
    if path.suffix in (".gif", ".mp4"):
        return trackio.Video(str(path), caption=caption, format="gif" if path.suffix == ".gif" else "mp4")
    return _image(path, caption)


def _note(*texts: object, **_: object) -> None:
    log.debug("%s", " ".join(map(str, texts)))
