"""Euler's method on the probability-flow ODE."""

from collections.abc import Callable

from torch import Tensor

from diffexp import scheduler
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(
    order=1,
    spacing="linspace",
    diffusers=("EulerDiscreteScheduler", "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"),
)
def euler(denoise: Denoiser, x: Tensor, levels: Levels, noise: Callable[[], Tensor]) -> Tensor:
    """Euler's method (Karras et al. 2022, arXiv:2206.00364, algorithm 1 without the correction), order 1.

    In ``x / alpha`` and ``s = sigma / alpha`` the probability-flow ODE is ``d(x / alpha) / ds = eps(x)``. One step of
    length ``s' - s`` in it, multiplied out so that it also holds at alpha = 0: x' = alpha' * (x0 + s' * eps).
    """
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        eps = (x - here.alpha * x0) / here.sigma
        x = there.alpha * x0 + there.sigma * eps
    return x
