"""Euler steps with ancestral noise."""

from collections.abc import Callable

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.sigma_space import ancestral_split
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(order=1, spacing="linspace", diffusers=("EulerAncestralDiscreteScheduler",))
def euler_ancestral(
    denoise: Denoiser, x: Tensor, levels: Levels, noise: Callable[[], Tensor], *, eta: float = 1.0
) -> Tensor:
    """Ancestral sampling by Euler's method (``sample_euler_ancestral`` of k-diffusion), weak order 1.

    Every step goes further down than its level and adds the noise that is then missing. One evaluation per step. The
    same method as ``ddim`` at equal levels and eta, if nothing is clipped; at eta = 1 that is ``ddpm``.

    Args:
        eta: share of the noise of the reverse process, 0 or more; 0 is ``euler``.
    """
    for here, there in levels.pairs():
        down, up = ancestral_split(here.ratio, there.ratio, eta)
        x0 = denoise(x, here)
        eps = (x - here.alpha * x0) / here.sigma
        x = there.alpha * (x0 + down * eps)
        if up > 0:
            x = x + there.alpha * up * noise()
    return x
