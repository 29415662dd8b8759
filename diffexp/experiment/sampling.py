"""Drawing all samples of a run, batch by batch, each batch on disk before the next begins."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffexp.components.loops.base import Batch
from diffexp.experiment.build import Parts
from diffexp.experiment.device import out_of_memory
from diffexp.experiment.folder import RunFolder, kept_samples, read_image
from diffexp.experiment.metric_suite import MetricSuite
from diffexp.experiment.monitor import SHOWN_IMAGES, Monitor
from diffexp.experiment.pictures.previews import as_pictures
from diffexp.experiment.pictures.strips import Snapshot
from diffexp.plan.noise import SampleNoise

log = logging.getLogger(__name__)

SHOWN = 256
"""How many pictures an overview shows."""


@dataclass
class Drawing:
    """What was drawn."""

    nfe: int = 0
    """Model evaluations per sample."""
    indices: list[int] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    pictures: list[Tensor] = field(default_factory=list)
    """The first images, batch by batch, or all points: what an overview shows."""
    seconds: float = 0.0
    """Sampling alone, without writing files."""
    model_seconds: float = 0.0
    drawn: int = 0
    """Samples that these seconds went into."""
    snapshots: list[Snapshot] = field(default_factory=list)
    steps: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    interrupted: bool = False
    model: Any = None

    def add(self, indices: Sequence[int], captions: Sequence[str], images: Tensor) -> None:
        if images.ndim == 2:
            self.pictures.append(images)
        elif len(self.indices) < SHOWN:
            self.pictures.append(images[: SHOWN - len(self.indices)].clone())
        self.indices += indices
        self.captions += captions

    def shown(self) -> Tensor:
        """The first samples as ``grid.png`` shows them: images, or all points."""
        return torch.cat(self.pictures)

    def truth(self) -> Tensor | None:
        """As many true draws where the model knows the truth and its samples are points."""
        if not hasattr(self.model, "sample_truth") or len(self.model.shape) != 1:
            return None
        return self.model.sample_truth(len(self.indices), torch.Generator().manual_seed(0)).cpu()


def draw_samples(parts: Parts, config: Mapping[str, Any], output: RunFolder, suite: MetricSuite) -> Drawing:
    """Draw samples 0..num_samples-1 but those that the folder has already; Ctrl-C keeps the finished batches.

    A batch goes to its files and to the suite as soon as it is there; the run's memory does not grow with its length.
    """
    model, size = parts.model, int(config["batch_size"])
    drawing = load_existing(parts, config, output, suite)
    todo = sorted(set(range(int(config["num_samples"]))).difference(drawing.indices))
    batches = -(-len(todo) // size)
    monitor = Monitor(model, parts.sampler.nfe, batches, config["snapshot_every"], config.get("max_nfe"), parts.context)
    monitor.model_seconds = drawing.model_seconds
    first: Tensor | None = None
    broken: list[int] = []
    try:
        for indices, samples, captions in _in_batches(todo, size, parts, int(config["seed"]), monitor, drawing):
            with parts.context.cpu_section():
                images = model.decode(samples).float().cpu()
            first = images[:SHOWN_IMAGES] if first is None else first
            broken += [i for i, fine in zip(indices, samples.flatten(1).isfinite().all(1).tolist()) if not fine]
            if images.ndim > 2 and suite.reads_samples:
                output.keep(indices, samples.float().cpu())
            output.save_samples(indices, images)
            drawing.add(indices, captions, images)  # at once, so that an interrupt does not part it from its files
            output.update(
                nfe=monitor.nfe,
                drawn=drawing.drawn,
                sampling_seconds=drawing.seconds,
                model_seconds=monitor.model_seconds,
            )
            with parts.context.cpu_section():
                suite.update(indices, samples.float().cpu(), images)
            parts.context.finished(len(indices))
    except KeyboardInterrupt:
        log.warning("interrupted after %d of %d samples", len(drawing.indices), config["num_samples"])
        drawing.interrupted = True
    finally:
        monitor.close()
        output.join_points()
    if broken:
        told = "%d of %d samples are not finite (NaN or infinity), sample %d for one; of a picture that is drawn grey"
        log.warning(told, len(broken), len(todo), broken[0])
    drawing.nfe = monitor.nfe if todo else drawing.nfe or monitor.nfe
    drawing.model_seconds = monitor.model_seconds
    drawing.steps = monitor.steps
    snapshots = [
        Snapshot(s.step, monitor.nfe, s.level, s.x.float().cpu(), s.x0.float().cpu()) for s in monitor.snapshots
    ]
    drawing.snapshots = as_pictures(snapshots, first)
    return drawing


def load_existing(parts: Parts, config: Mapping[str, Any], output: RunFolder, suite: MetricSuite) -> Drawing:
    """What is in the folder already, taken in batch by batch."""
    record, size = output.record, int(config["batch_size"])
    drawing = Drawing(
        nfe=record.get("nfe") or 0,
        drawn=record.get("drawn", 0),
        seconds=record.get("sampling_seconds", 0.0),
        model_seconds=record.get("model_seconds", 0.0),
        model=parts.model,
    )
    paths, kept = output.finished_images(), output.kept()
    if paths.keys() - kept.keys():
        suite.only_pictures()
    for start in range(0, len(paths), size):
        indices = list(paths)[start : start + size]
        images = torch.stack([read_image(paths[index]) for index in indices])
        drawing.add(indices, _captions(parts, indices), images)
        known = all(index in kept for index in indices)
        suite.update(indices, kept_samples(kept, indices) if known else images * 2 - 1, images)
    indices, points = output.finished_points()
    if indices:
        drawing.add(indices, _captions(parts, indices), points)
        suite.update(indices, points, points)
    return drawing


def _captions(parts: Parts, indices: Sequence[int]) -> list[str]:
    return parts.model.describe(parts.model.conditions(parts.request, indices))


def _in_batches(
    todo: Sequence[int], size: int, parts: Parts, seed: int, monitor: Monitor, drawing: Drawing
) -> Iterator[tuple[Sequence[int], Tensor, list[str]]]:
    """Finished batches; one that does not fit into memory is halved, and so are all after it."""
    start = 0
    while start < len(todo):
        indices = todo[start : start + size]
        began = parts.context.clock()
        try:
            samples, captions = _draw(parts, indices, seed, monitor)
        except RuntimeError as error:
            if len(indices) == 1 or not out_of_memory(error):
                raise
            size = len(indices) // 2
            monitor.expect(-(-(len(todo) - start) // size))
            log.warning("a batch of %d does not fit into memory, going on with %d", len(indices), size)
            continue
        drawing.seconds += parts.context.clock() - began
        drawing.drawn += len(indices)
        start += len(indices)
        yield indices, samples, captions


def _draw(parts: Parts, indices: Sequence[int], seed: int, monitor: Monitor) -> tuple[Tensor, list[str]]:
    model = parts.model
    # The state between evaluations stays in at least float32, whatever the network computes in.
    dtype = torch.promote_types(model.dtype, torch.float32)
    noise = SampleNoise(seed, indices, model.shape, model.device, dtype)
    with parts.context.cpu_section():
        condition = model.conditions(parts.request, indices).drawn(noise.generators)
    monitor.begin_batch()
    batch = Batch(
        indices=indices,
        model=model,
        condition=condition,
        sampler=parts.sampler,
        network=monitor.network(parts.predict, condition),
        network_at_once=monitor.network_at_once(parts.predict, condition),
        unguided=partial(monitor.network, parts.model.predict),
        noise=noise.draw,
        generators=noise.generators,
        recipe=parts.recipe,
        request=parts.request,
        guidance=parts.guidance,
        guidance_scale=parts.guidance_scale,
        guidance_options=parts.guidance_options,
        seen=monitor.seen,
        expect=monitor.expect_evaluations,
    )
    with parts.context.sampling(), torch.inference_mode():
        samples = parts.loop(batch)
        monitor.finish_batch(samples)
        parts.context.synchronize(model.device)  # once a batch, so that its time is its own
    return samples, model.describe(condition)
