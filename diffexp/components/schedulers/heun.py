"""Heun's method on the probability-flow ODE."""

from collections.abc import Callable

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.sigma_space import SigmaSpace, heun_step
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(order=2, spacing="linspace", diffusers=("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"))
def heun(denoise: Denoiser, x: Tensor, levels: Levels, noise: Callable[[], Tensor]) -> Tensor:
    """Heun's method (Karras et al. 2022, arXiv:2206.00364, algorithm 1), order 2.

    Two evaluations per step, one in the last: 2 * steps - 1 in all. A flow model is followed in the flow's own time.
    """
    space = SigmaSpace.of(levels.schedule)
    for here, there in levels.pairs():
        x = heun_step(space, denoise, x, here, there)
    return x
