"""Samples of a run, drawn batch by batch."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from diffexp.components.loops import base
from diffexp.components.loops.base import Batch
from diffexp.components.models.base import state_dtype
from diffexp.experiment.build import Components
from diffexp.experiment.device import out_of_memory
from diffexp.experiment.monitor import Monitor
from diffexp.plan.compile import Direct
from diffexp.plan.noise import SampleNoise

log = logging.getLogger(__name__)


@dataclass
class Drawing:
    """Draws samples of one run in this process."""

    run: Components
    seed: int
    size: int
    """Samples in a batch; one that does not fit into memory is halved, and so are all after it."""
    monitor: Monitor
    drew_noise: bool = False
    """Whether some sample depends on the seed, as far as is known."""

    @classmethod
    def of(cls, run: Components, config: Mapping[str, Any], size: int, batches: int) -> Self:
        """The drawing of a run in ``batches`` batches of ``size``."""
        monitor = Monitor(
            run.model,
            run.sampler.nfe,
            batches,
            config["snapshot_every"],
            config.get("max_nfe"),
            run.context,
            run.live,
            passes=run.passes,
            max_forward_passes=config.get("max_forward_passes"),
        )
        return cls(run, int(config["seed"]), size, monitor)

    def batches(self, todo: Sequence[int]) -> Iterator[tuple[Batch, Tensor]]:
        """Batches of the samples with these indices, each with its samples [B, *shape]."""
        start = 0
        while start < len(todo):
            indices = todo[start : start + self.size]
            self.monitor.begin_batch()
            try:
                with self.run.context.cpu_section():
                    batch = make_batch(self.run, self.seed, indices, self.monitor)
                with self.run.context.sampling(), torch.inference_mode():
                    samples = self.run.loop(batch)
                    self.monitor.finish_batch(samples)
            except RuntimeError as error:
                if len(indices) == 1 or not out_of_memory(error):
                    raise
                self.size = len(indices) // 2
                self.monitor.expect(-(-(len(todo) - start) // self.size))
                log.warning("a batch of %d does not fit into memory, continuing with %d", len(indices), self.size)
                continue
            start += len(indices)
            self.drew_noise = self.drew_noise or has_drawn(self.seed, batch)
            yield batch, samples


def batch_size(run: Components, config: Mapping[str, Any]) -> int:
    """The number of samples in a batch of the run."""
    size = int(config["batch_size"])
    if size > 1 and isinstance(run.sampler, Direct) and run.sampler.couples_samples:
        log.warning("%s chooses its steps for a whole batch: one sample at a time is drawn", run.sampler.method.name)
        return 1
    return size


def make_batch(run: base.Run, seed: int, indices: Sequence[int], monitor: base.Monitor) -> Batch:
    """The batch of these samples of a run: their noise, their condition and, through ``monitor``, their networks."""
    model = run.model
    noise = SampleNoise(seed, indices, model.shape, model.device, state_dtype(model))
    condition = model.conditions(run.request, indices).drawn(noise.generators)

    def draws() -> Iterator[Tensor]:
        yield condition.start_noise(noise.draw)
        while True:
            yield condition.step_noise(noise.draw())

    return Batch(run, indices, condition, draws().__next__, noise.generators, monitor)


def has_drawn(seed: int, batch: Batch) -> bool:
    """Whether the stream of the first sample of a batch is no longer at its start."""
    start = SampleNoise(seed, batch.indices[:1], ()).generators[0]
    return not torch.equal(start.get_state(), batch.generators[0].get_state())
