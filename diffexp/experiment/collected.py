"""Finished samples as they come: written, measured, and gathered for what is shown of them."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffexp.components.media import Media, media_of
from diffexp.components.metrics.base import Finished
from diffexp.components.models.base import Condition, decode
from diffexp.components.pixels import to_model_range
from diffexp.experiment.build import Components
from diffexp.experiment.cost import facts_so_far
from diffexp.experiment.folder import RunFolder
from diffexp.experiment.metric_suite import MetricSuite
from diffexp.experiment.monitor import SHOWN_IMAGES
from diffexp.experiment.pictures.grid import MAX_GRID
from diffexp.experiment.pictures.previews import as_images
from diffexp.experiment.recorded import whole_images
from diffexp.experiment.sample_files import SampleFiles, load_raw, shape_on_disk
from diffexp.experiment.samples import Samples
from diffexp.experiment.stores.base import in_turn
from diffexp.experiment.tally import Tally

log = logging.getLogger(__name__)


class BatchWriter:
    """Writes finished batches of a run to its folder."""

    def __init__(self, run: Components, output: SampleFiles) -> None:
        self._run, self._output = run, output
        self.first: Tensor | None = None
        """Images of the first batch; the snapshots are of the same samples."""
        self.broken: list[int] = []
        """Indices of samples that are not finite."""

    def decode(self, indices: Sequence[int], samples: Tensor, condition: Condition) -> Finished:
        """Decode a batch of ``samples`` [B, *shape] that were drawn under ``condition``."""
        with self._run.context.cpu_section():
            found = Finished.of(samples, decode(self._run.model, samples, condition))
        self.first = _shown(found)[:SHOWN_IMAGES] if self.first is None else self.first
        finite = found.samples.flatten(1).isfinite().all(1).tolist()
        self.broken += [index for index, whole in zip(indices, finite) if not whole]
        return found

    def save(self, indices: Sequence[int], batch: Finished, *, raw: bool) -> None:
        """Write a decoded batch."""
        if batch.images.ndim > 2 and raw:
            self._output.store_raw(indices, batch.samples)
        if batch.media is not None:
            self._output.save_media(indices, batch.media, self._media(batch.media))
        self._output.save_samples(indices, batch.images)

    def _media(self, decoded: Tensor) -> Media:
        """What the samples are: as the model says, else as their axes say."""
        return media_of(self._run.model) or (Media("video", 8.0) if decoded.ndim == 5 else Media("sound", 16000.0))


def _shown(batch: Finished) -> Tensor:
    """The images that snapshots of the same samples look like: of videos the middle frames. Sounds as they are."""
    if batch.media is None:
        return batch.images
    return as_images(batch.media.transpose(1, 2)) if batch.media.ndim == 5 else batch.media


class Collected:
    """The finished samples of a run so far: measures them, and gathers what is shown of them."""

    def __init__(self, run: Components, output: RunFolder, suite: MetricSuite) -> None:
        self._run, self._output, self._suite = run, output, suite
        self.indices: list[int] = []
        self.image_shape: list[int] | None = None
        """Channels, height and width of the images on disk; None for points."""
        self._captions: list[str] = []
        self._shown: list[Tensor] = []

    def load(self, size: int, within: range | None = None) -> None:
        """Take in what is in the folder, of these indices if given, in batches of ``size``."""
        files = whole_images(self._output, self._output.record, within)
        raw = self._output.raw_files(tuple(self._run.model.shape), within)
        if files.keys() - raw.keys():
            self._suite.only_images()
        for indices in in_turn(list(files), size):
            images = files.read(indices)
            known = all(index in raw for index in indices)
            self.add(indices, self._describe(indices), images)
            self.measure(indices, Finished(load_raw(raw, indices) if known else to_model_range(images), images))
        indices, points = self._output.finished_points(within)
        if indices:
            self.add(indices, self._describe(indices), points)
            self.measure(indices, Finished(points, points))

    def add(self, indices: Sequence[int], captions: Sequence[str], images: Tensor) -> None:
        """Take in a batch that is on disk; ``images`` [B, C, H, W] in [0, 1], or points [B, d]."""
        self.image_shape = shape_on_disk(images)
        if images.ndim == 2:
            self._shown.append(images)
        elif len(self.indices) < MAX_GRID:
            self._shown.append(images[: MAX_GRID - len(self.indices)].clone())
        self.indices += indices
        self._captions += captions

    def measure(self, indices: Sequence[int], batch: Finished) -> None:
        """Update the metrics by a batch that was taken in, and log it."""
        with self._run.context.cpu_section():
            self._suite.update(indices, batch.samples, batch.images)
            self._run.live.batch(indices, self._captions[-len(indices) :], batch.images, len(self.indices))

    def log_metrics(self, tally: Tally, nfe: int) -> None:
        """Log the metrics so far; ``tally`` and ``nfe`` are what sampling took so far."""
        with self._run.context.cpu_section():
            samples = partial(self.samples, tally, nfe, tally.forward_passes)
            self._run.live.metrics(self._suite, lambda: facts_so_far(self._run, samples()))

    def samples(self, tally: Tally, nfe: int, forward_passes: float | None, **rest: Any) -> Samples:
        """The samples of the run; ``rest`` are other fields of ``Samples``."""
        shown = torch.cat(self._shown) if self._shown else None
        return Samples(tuple(self.indices), tuple(self._captions), shown, nfe, forward_passes, tally, **rest)

    def _describe(self, indices: Sequence[int]) -> list[str]:
        model = self._run.model
        return model.describe(model.conditions(self._run.request, indices))


def warn_of_broken(broken: Sequence[int], total: int) -> None:
    """Log how many of ``total`` stored samples are not finite."""
    if broken:
        message = "%d of %d samples are not finite (NaN or infinity), for example sample %d; images show them grey"
        log.warning(message, len(broken), total, broken[0])


def warn_of_interrupt(output: RunFolder, finished: int, total: int) -> None:
    """Log how far an interrupted run is, and how it goes on."""
    log.warning("interrupted after %d of %d samples", finished, total)
    if not output.is_cell:
        log.warning("go on with: python -m diffexp resume=%s", output.folder)
