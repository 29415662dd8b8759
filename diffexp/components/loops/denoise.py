"""Plain denoising: the reverse process from pure noise to a sample."""

from torch import Tensor

from diffexp import loop
from diffexp.components.loops.base import Batch
from diffexp.plan.compile import sample


@loop(solves_from_noise=True)
def denoise(batch: Batch) -> Tensor:
    """Draw the start sample and run the sampler to its end (Ho et al. 2020, algorithm 2, for any scheduler)."""
    start = batch.noise() * batch.sampler.start_std
    return sample(batch.sampler, batch.network, start, batch.noise)
