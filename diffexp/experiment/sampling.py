"""Sampling of a whole run, batch by batch; each batch is on disk before the next begins."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffexp.components.loops import base
from diffexp.components.loops.base import Batch
from diffexp.components.models.base import state_dtype
from diffexp.components.pixels import to_model_range
from diffexp.experiment.build import Components
from diffexp.experiment.device import out_of_memory
from diffexp.experiment.folder import RunFolder, recorded_shape
from diffexp.experiment.metric_suite import MetricSuite
from diffexp.experiment.monitor import SHOWN_IMAGES, Monitor
from diffexp.experiment.pictures.grid import MAX_GRID
from diffexp.experiment.pictures.previews import latents_to_rgb
from diffexp.experiment.pictures.strips import Snapshot
from diffexp.experiment.sample_files import load_raw, shape_on_disk
from diffexp.experiment.stores.base import in_turn
from diffexp.plan.compile import Direct
from diffexp.plan.noise import SampleNoise

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """The finished samples of a run and what sampling took."""

    indices: Sequence[int]
    """In the order of the batches."""
    captions: Sequence[str]
    shown: Tensor | None
    """The first images [n, C, H, W] in [0, 1], or all points [N, d]; None where there are no samples."""
    nfe: int
    """Model evaluations per sample."""
    forward_passes: float | None
    """Forward passes of the network per sample, those for guidance included; None where they are not known."""
    drawn: int
    """How many samples ``seconds`` and ``model_seconds`` are the time of."""
    seconds: float
    """Sampling alone, without writing files."""
    model_seconds: float
    """Inside model calls."""
    snapshots: Sequence[Snapshot] = ()
    steps: Sequence[tuple[int, dict[str, float]]] = ()
    """Scalars of the first batch's steps."""
    interrupted: bool = False
    drew_noise: bool = True
    """Whether the samples depend on the seed, as far as is known."""


def generate(run: Components, config: Mapping[str, Any], output: RunFolder, suite: MetricSuite) -> Samples:
    """Sample 0..num_samples-1 except what the folder already has; Ctrl-C keeps the finished batches.

    A finished batch is written and measured at once; the run's memory does not grow with its length.
    """
    size, total = _batch_size(run, config), int(config["num_samples"])
    finished = _Finished(run, output, suite)
    finished.load(size)
    todo = sorted(set(range(total)).difference(finished.indices))
    nfe, batches = run.sampler.nfe, -(-len(todo) // size)
    monitor = Monitor(
        run.model,
        nfe,
        batches,
        config["snapshot_every"],
        config.get("max_nfe"),
        run.context,
        passes=run.passes,
        max_forward_passes=config.get("max_forward_passes"),
    )
    monitor.add(output.record)
    interrupted = drew_noise = False
    try:
        for batch, samples in _batches(run, int(config["seed"]), todo, size, monitor):
            drew_noise = drew_noise or has_drawn(int(config["seed"]), batch)
            finished.store(batch, samples, monitor.record())
    except KeyboardInterrupt:
        log.warning("interrupted after %d of %d samples", len(finished.indices), total)
        if not output.is_cell:
            log.warning("go on with: python -m diffexp resume=%s", output.folder)
        interrupted = True
    finally:
        monitor.close()
        output.join_points()
    if not interrupted:
        output.images.join()
    finished.warn_of_broken(len(todo))
    record = monitor.record()
    if not todo:  # the samples are those of an earlier run
        record |= {"nfe": output.record["nfe"] or monitor.nfe, "forward_passes": output.record.get("forward_passes")}
    snapshots = latents_to_rgb(monitor.snapshots, finished.first)
    return finished.samples(record, snapshots, monitor.steps, interrupted, drew_noise or not todo)


def _batch_size(run: Components, config: Mapping[str, Any]) -> int:
    size = int(config["batch_size"])
    if size > 1 and isinstance(run.sampler, Direct) and run.sampler.couples_samples:
        log.warning("%s chooses its steps for a whole batch: one sample at a time is drawn", run.sampler.method.name)
        return 1
    return size


def load_samples(run: Components, config: Mapping[str, Any], output: RunFolder) -> Samples:
    """The samples of a run whose folder has all of them."""
    finished = _Finished(run, output, MetricSuite({}, run.model))
    finished.load(int(config["batch_size"]))
    return finished.samples(output.record)


def make_batch(run: base.Run, seed: int, indices: Sequence[int], monitor: base.Monitor) -> Batch:
    """The batch of these samples of a run: their noise, their condition and, through ``monitor``, their networks."""
    model = run.model
    noise = SampleNoise(seed, indices, model.shape, model.device, state_dtype(model))
    condition = model.conditions(run.request, indices).drawn(noise.generators)
    return Batch(run, indices, condition, noise.draw, noise.generators, monitor)


def has_drawn(seed: int, batch: Batch) -> bool:
    """Whether the stream of the first sample of a batch is no longer at its start."""
    start = SampleNoise(seed, batch.indices[:1], ()).generators[0]
    return not torch.equal(start.get_state(), batch.generators[0].get_state())


class _Finished:
    """The finished samples of a run so far: writes and measures them, and gathers what is shown of them."""

    def __init__(self, run: Components, output: RunFolder, suite: MetricSuite) -> None:
        self._run, self._output, self._suite = run, output, suite
        self.indices: list[int] = []
        self.first: Tensor | None = None
        """Images of the first batch that was not loaded; the snapshots are of the same samples."""
        self._captions: list[str] = []
        self._shown: list[Tensor] = []
        self._broken: list[int] = []

    def load(self, size: int) -> None:
        """Take in what is in the folder, in batches of ``size``."""
        files = self._output.intact_images(recorded_shape(self._output.record))
        raw = self._output.raw_files(tuple(self._run.model.shape))
        if files.keys() - raw.keys():
            self._suite.only_images()
        for indices in in_turn(list(files), size):
            images = files.read(indices)
            self._add(indices, self._describe(indices), images)
            known = all(index in raw for index in indices)
            self._suite.update(indices, load_raw(raw, indices) if known else to_model_range(images), images)
        indices, points = self._output.finished_points()
        if indices:
            self._add(indices, self._describe(indices), points)
            self._suite.update(indices, points, points)

    def store(self, batch: Batch, samples: Tensor, record: Mapping[str, Any]) -> None:
        """Write and measure a batch of ``samples`` [B, *shape]; ``record`` are entries of ``run.json``."""
        run, indices = self._run, batch.indices
        with run.context.cpu_section():
            images = run.model.decode(samples).float().cpu()
        samples = samples.float().cpu()
        self.first = images[:SHOWN_IMAGES] if self.first is None else self.first
        self._broken += [i for i, finite in zip(indices, samples.flatten(1).isfinite().all(1).tolist()) if not finite]
        if images.ndim > 2 and self._suite.reads_samples:
            self._output.store_raw(indices, samples)
        self._output.save_samples(indices, images)
        shape = shape_on_disk(images) if images.ndim > 2 else None
        self._add(indices, run.model.describe(batch.condition), images)  # at once: an interrupt may follow
        self._output.update(**record, image_shape=shape)
        with run.context.cpu_section():
            self._suite.update(indices, samples, images)
        run.context.finished(len(indices))

    def warn_of_broken(self, total: int) -> None:
        """Log how many of ``total`` stored samples are not finite."""
        if self._broken:
            message = "%d of %d samples are not finite (NaN or infinity), for example sample %d; images show them grey"
            log.warning(message, len(self._broken), total, self._broken[0])

    def samples(self, record: Mapping[str, Any], *rest: Any) -> Samples:
        """Build the samples of the run; ``record`` are entries of ``run.json``, ``rest`` the other fields."""
        shown = torch.cat(self._shown) if self._shown else None
        taken: list[Any] = [record.get(key) for key in ("forward_passes", "drawn", "sampling_seconds", "model_seconds")]
        return Samples(tuple(self.indices), tuple(self._captions), shown, record["nfe"] or 0, *taken, *rest)

    def _add(self, indices: Sequence[int], captions: Sequence[str], images: Tensor) -> None:
        if images.ndim == 2:
            self._shown.append(images)
        elif len(self.indices) < MAX_GRID:
            self._shown.append(images[: MAX_GRID - len(self.indices)].clone())
        self.indices += indices
        self._captions += captions

    def _describe(self, indices: Sequence[int]) -> list[str]:
        model = self._run.model
        return model.describe(model.conditions(self._run.request, indices))


def _batches(
    run: Components, seed: int, todo: Sequence[int], size: int, monitor: Monitor
) -> Iterator[tuple[Batch, Tensor]]:
    """Batches with their samples; one that does not fit into memory is halved, and so are all after it."""
    start = 0
    while start < len(todo):
        indices = todo[start : start + size]
        monitor.begin_batch()
        try:
            with run.context.cpu_section():
                batch = make_batch(run, seed, indices, monitor)
            with run.context.sampling(), torch.inference_mode():
                samples = run.loop(batch)
                monitor.finish_batch(samples)
        except RuntimeError as error:
            if len(indices) == 1 or not out_of_memory(error):
                raise
            size = len(indices) // 2
            monitor.expect(-(-(len(todo) - start) // size))
            log.warning("a batch of %d does not fit into memory, continuing with %d", len(indices), size)
            continue
        start += len(indices)
        yield batch, samples
