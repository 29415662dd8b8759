"""The midpoint method in log sigma."""

from collections.abc import Callable

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.sigma_space import SigmaSpace, midpoint_step
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(order=2, spacing="linspace", diffusers=("KDPM2DiscreteScheduler",))
def dpm2(denoise: Denoiser, x: Tensor, levels: Levels, noise: Callable[[], Tensor]) -> Tensor:
    """DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927, algorithm 1) as k-diffusion's ``sample_dpm_2``, order 2.

    The slope is taken at the middle of the step in log sigma, as DPM-Solver-2 does, but followed in sigma. Two
    evaluations per step, one in the last, which is Euler's.
    """
    space = SigmaSpace.of(levels.schedule)
    for here, there in levels.pairs():
        x = midpoint_step(space, denoise, x, here, there)
    return x
