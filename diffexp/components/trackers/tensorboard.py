"""TensorBoard: event files in the run folder."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexp import tracker
from diffexp.catalog.types import flat
from diffexp.components.trackers.base import Comparison, RunInfo, SampleRow

if TYPE_CHECKING:
    from PIL import Image
    from torch.utils.tensorboard.writer import SummaryWriter

log = logging.getLogger(__name__)

FOLDER = "tensorboard"
MAX_ROWS = 1000
"""Samples of the table."""
MAX_IMAGES = 108
"""Samples with images."""
COLUMNS = 8
"""Images beside each other in the picture of a batch."""
FLUSH_SECONDS = 5
FRAME_SECONDS = 0.5


@tracker(name="tensorboard", requires=["tensorboard"])
class TensorBoardTracker:
    """Event files in ``tensorboard/`` of the run folder, live; ``tensorboard --logdir outputs`` shows all runs.

    The step of a scalar of a solver step is that step; of a metric, the number of samples that it is computed from.
    """

    def __init__(self) -> None:
        self.run_id: str | None = None
        self._writer: SummaryWriter | None = None
        self._config: dict[str, Any] = {}
        self._shown: set[int] = set()
        """Indices of the samples whose images were logged."""

    @property
    def writer(self) -> SummaryWriter:
        if self._writer is None:
            raise RuntimeError("the tracker has not been started")
        return self._writer

    def start(self, info: RunInfo) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._config = info.config
        self._writer = SummaryWriter(str(info.folder / FOLDER), flush_secs=FLUSH_SECONDS)
        about = {"name": info.name, "group": info.group, "job_type": info.job_type, "tags": ", ".join(info.tags)}
        about |= {"notes": info.notes}
        self.writer.add_text("run", markdown(["key", "value"], [[key, own] for key, own in about.items() if own]))
        self.writer.add_text("config", markdown(["key", "value"], [*flat(info.config).items()]))
        if info.facts:
            self.log_facts(info.facts)
        if not info.sweep:
            log.info("TensorBoard: tensorboard --logdir %s", info.folder)

    def log_facts(self, facts: Mapping[str, Any]) -> None:
        self.writer.add_text("facts", markdown(["key", "value"], [*flat(facts).items()]))

    def log_step(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"steps/{name}", value, step)

    def log_preview(self, step: int, image: Image.Image) -> None:
        self._add("steps/x0", image, step)

    def log_images(self, key: str, paths: dict[str, Path]) -> None:
        from PIL import Image, ImageSequence

        for caption, path in paths.items():
            with Image.open(path) as image:
                for number, frame in enumerate(ImageSequence.Iterator(image)):  # of an animation, a slider
                    self._add(f"{key}/{caption}", frame, number)

    def log_batch(self, rows: Sequence[SampleRow], done: int) -> None:
        self._log_shown(rows, done)

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"metrics/{name}", value, samples)

    def log_samples(self, rows: Sequence[SampleRow]) -> None:
        table = [[row.index, row.caption, row.seed, row.path.name if row.path else ""] for row in rows[:MAX_ROWS]]
        self.writer.add_text("samples_table", markdown(["index", "caption", "seed", "file"], table))
        self._log_shown([row for row in rows[:MAX_IMAGES] if row.index not in self._shown], len(rows))

    def log_files(self, name: str, files: Mapping[str, Path]) -> None:
        for path, file in files.items():
            text = file.read_text(encoding="utf-8", errors="replace")
            self.writer.add_text(f"{name}/{path}", "\n".join(f"    {line}" for line in text.splitlines()))

    def log_media(self, files: Mapping[str, Path]) -> None:
        """Log sounds; of videos the frames of their GIFs, each a step of a slider."""
        for caption, path in files.items():
            if path.suffix == ".wav":
                self._add_sound(f"media/{caption}", path)
            else:
                self.log_images("media", {caption: path.with_suffix(".gif")})

    def finish(self, summary: dict[str, float], status: str) -> None:
        from torch.utils.tensorboard.summary import hparams

        try:
            self.writer.add_text("status", status)
            # Not ``add_hparams``, which makes a run of its own.
            plain = bool | int | float | str
            config = {key: own if isinstance(own, plain) else str(own) for key, own in flat(self._config).items()}
            for part in hparams(config, {f"summary/{name}": 0.0 for name in summary}):
                self.writer._get_file_writer().add_summary(part)
            for name, value in summary.items():
                if math.isfinite(value):
                    self.writer.add_scalar(f"summary/{name}", value)
        finally:
            self.writer.close()

    def compare(self, comparison: Comparison) -> None:
        """Write a run of its own into the sweep's folder: results as a table, curves, and the images."""
        from PIL import Image

        self.start(comparison.info)
        columns = [column for column in comparison.columns if column != "pictures"]
        rows = [[own for own in row if not isinstance(own, Path)][: len(columns)] for row in comparison.rows]
        self.writer.add_text("results", markdown(columns, rows))
        for row in comparison.rows:
            for path in (own for own in row if isinstance(own, Path)):
                with Image.open(path) as image:
                    self._add(f"pictures/{row[0]}", image, 0)
        for curves in comparison.curves:
            for name, xs, ys in zip(curves.names, curves.xs, curves.ys):
                for x, y in zip(xs, ys):
                    self.writer.add_scalar(f"{curves.title}/{name}", y, round(x))
        self.finish({"cells": len(comparison.rows)}, "done")

    def _log_shown(self, rows: Sequence[SampleRow], done: int) -> None:
        """Log the samples of a batch as one picture; its captions are in the table."""
        from PIL import Image

        images: list[Image.Image] = []
        for row in rows:
            if len(self._shown) >= MAX_IMAGES or not (row.load or row.path):
                continue
            self._shown.add(row.index)
            if row.load:
                images.append(row.load().convert("RGB"))
            elif row.path:
                with Image.open(row.path) as image:
                    images.append(image.convert("RGB"))
        if images:
            width, height = images[0].size
            sheet = Image.new("RGB", (min(COLUMNS, len(images)) * width, -(-len(images) // COLUMNS) * height))
            for number, image in enumerate(images):
                sheet.paste(image, (number % COLUMNS * width, number // COLUMNS * height))
            self._add("samples", sheet, done)

    def _add_sound(self, tag: str, path: Path) -> None:
        """Log a WAV as mono, which is what TensorBoard plays."""
        import wave

        import numpy as np

        with wave.open(str(path)) as file:
            values = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
            rate = file.getframerate()
        self.writer.add_audio(tag, values.mean(axis=1, keepdims=True).T / 32768, sample_rate=rate)

    def _add(self, tag: str, image: Image.Image, step: int) -> None:
        import numpy as np

        self.writer.add_image(tag, np.asarray(image.convert("RGB")), step, dataformats="HWC")


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
    return " ".join(text.replace("|", "\\|").split())
