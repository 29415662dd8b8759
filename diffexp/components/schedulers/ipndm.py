"""Improved pseudo numerical method for diffusion models."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.exponential import adams_bashforth
from diffexp.components.schedulers.shared.sigma_space import SigmaSpace
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(discrete=True, order=("order", 1, 2, 2, 2), uneven_order=1)
def ipndm(
    denoise: Denoiser, x: Tensor, levels: Levels, noise: Callable[[], Tensor], *, order: Literal[1, 2, 3, 4] = 4
) -> Tensor:
    """iPNDM (Zhang & Chen 2022, arXiv:2204.13902): ``pndm`` that starts with fewer estimates. One evaluation per step.

    Each step goes along Adams and Bashforth's mean of the last noise estimates, by DDIM's formula (``SigmaSpace.move``
    on VP levels). Their weights hold for equal steps in time; on other grids, and because noise counts unevenly in
    time, the method converges with order 2 (1 for ``order`` = 1), whatever ``order`` is.

    Args:
        order: number of noise estimates; 1 is ``ddim``, up to the stride and the clipping.
    """
    space = SigmaSpace.of(levels.schedule)
    slopes: list[Tensor] = []  # newest first
    for here, there in levels.pairs():
        slopes = [space.slope(x, denoise(x, here), here), *slopes][:order]
        x = space.move(x, adams_bashforth(slopes), here, there)
    return x
