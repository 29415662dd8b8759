"""Drawing all samples of a run, batch by batch, each batch on disk before the next begins."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffexp.assembly import Parts
from diffexp.loops.base import Batch
from diffexp.meters import Meters
from diffexp.noise import SampleNoise
from diffexp.outputs import RunFolder
from diffexp.pictures import Snapshot
from diffexp.plan import Plan
from diffexp.watch import Watch

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


def draw_samples(
    parts: Parts, config: Mapping[str, Any], output: RunFolder, done: Mapping[int, Tensor], meters: Meters
) -> Drawing:
    """Draw samples 0..num_samples-1 but those that are ``done`` (index to image); Ctrl-C keeps the finished batches.

    A batch goes to its files and to the meters as soon as it is there; the run's memory does not grow with its length.
    """
    model, size = parts.model, int(config["batch_size"])
    drawing = Drawing(model=model)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)  # runs of a sweep share a process
    todo = [index for index in range(int(config["num_samples"])) if index not in done]
    if done:
        _add_earlier(drawing, parts, done, meters)
    # A direct method's evaluations are only known once it has run; its steps are a first guess.
    nfe = parts.sampler.nfe if isinstance(parts.sampler, Plan) else parts.sampler.method.nfe
    watch = Watch(model, nfe, -(-len(todo) // size), config["snapshot_every"])
    try:
        for indices, samples, captions in _in_batches(todo, size, parts, int(config["seed"]), watch, drawing):
            images = model.decode(samples).float().cpu()
            if images.ndim == 4:
                output.save_images(indices, images)
            drawing.add(indices, captions, images)
            meters.update(samples.float().cpu(), images)
    except KeyboardInterrupt:
        log.warning("interrupted after %d of %d samples", len(drawing.indices), config["num_samples"])
        drawing.interrupted = True
    finally:
        watch.close()
        if drawing.pictures and drawing.pictures[0].ndim == 2:
            output.save_points(drawing.shown())
    drawing.nfe = watch.nfe
    drawing.model_seconds = watch.model_seconds
    drawing.steps = watch.steps
    drawing.snapshots = [
        Snapshot(s.step, watch.nfe, s.level, s.x.float().cpu(), s.x0.float().cpu()) for s in watch.snapshots
    ]
    return drawing


def _in_batches(
    todo: Sequence[int], size: int, parts: Parts, seed: int, watch: Watch, drawing: Drawing
) -> Iterator[tuple[Sequence[int], Tensor, list[str]]]:
    """Finished batches; one that does not fit into memory is halved, and so are all after it."""
    start = 0
    while start < len(todo):
        indices = todo[start : start + size]
        began = time.perf_counter()
        try:
            samples, captions = _draw(parts, indices, seed, watch)
        except RuntimeError as error:
            if len(indices) == 1 or not _out_of_memory(error):
                raise
            size = len(indices) // 2
            watch.expect(-(-(len(todo) - start) // size))
            log.warning("a batch of %d does not fit into memory, going on with %d", len(indices), size)
            continue
        drawing.seconds += time.perf_counter() - began
        drawing.drawn += len(indices)
        start += len(indices)
        yield indices, samples, captions


def _draw(parts: Parts, indices: Sequence[int], seed: int, watch: Watch) -> tuple[Tensor, list[str]]:
    model = parts.model
    # The state between evaluations stays in at least float32, whatever the network computes in.
    dtype = torch.promote_types(model.dtype, torch.float32)
    condition = model.conditions(parts.request, indices)
    noise = SampleNoise(seed, indices, model.shape, model.device, dtype)
    network = watch.network(parts.predict, condition)
    batch = Batch(indices, model, condition, parts.sampler, network, noise.draw)
    with torch.inference_mode():
        samples = parts.loop(batch)
        watch.finish_batch(samples)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)  # once a batch, so that its time is its own
    return samples, model.describe(condition)


def _add_earlier(drawing: Drawing, parts: Parts, done: Mapping[int, Tensor], meters: Meters) -> None:
    indices = sorted(done)
    images = torch.stack([done[index] for index in indices])
    captions = parts.model.describe(parts.model.conditions(parts.request, indices))
    drawing.add(indices, captions, images)
    meters.update(images * 2 - 1, images)


def _out_of_memory(error: RuntimeError) -> bool:
    told = str(error).lower()  # only CUDA has a type of its own for it
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in told or "can't allocate memory" in told
