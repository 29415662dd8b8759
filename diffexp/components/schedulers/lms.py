"""The linear multistep method in sigma."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.exponential import adams_weights
from diffexp.components.schedulers.shared.sigma_space import SigmaSpace
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(order="order", spacing="linspace", diffusers=("LMSDiscreteScheduler",))
def lms(
    denoise: Denoiser, x: Tensor, levels: Levels, noise: Callable[[], Tensor], *, order: Literal[1, 2, 3, 4] = 4
) -> Tensor:
    """Adams-Bashforth's method for steps of any size (``sample_lms`` of k-diffusion).

    A step follows the polynomial in sigma through the last ``order`` slopes (Hairer, Norsett & Wanner, Solving
    Ordinary Differential Equations I, section III.5), integrated exactly. One evaluation per step. On VP and VE levels
    this is DEIS with polynomials in rho (Zhang & Chen 2022, arXiv:2204.13902).

    The first steps have fewer slopes to look back on and are of lower order. That costs nothing where the slope
    hardly changes at first, as at high sigma; on flow levels it leaves order 2.

    Args:
        order: number of slopes; 1 is ``euler``.
    """
    space = SigmaSpace.of(levels.schedule)
    slopes: list[Tensor] = []  # newest first, and so are the sigmas they belong to
    sigmas: list[float] = []
    for here, there in levels.pairs():
        slopes = [space.slope(x, denoise(x, here), here), *slopes][:order]
        sigmas = [space.sigma(here), *sigmas][:order]
        weights = adams_weights(sigmas, space.sigma(here), space.sigma(there), rate=0.0)
        mean = sum((w * slope for w, slope in zip(weights[1:], slopes[1:])), weights[0] * slopes[0])
        x = space.move(x, mean, here, there)
    return x
