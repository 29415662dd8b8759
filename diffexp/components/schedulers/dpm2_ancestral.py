"""The midpoint method in log sigma, with ancestral noise."""

from collections.abc import Callable

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.sigma_space import SigmaSpace, add_noise, ancestral_split, midpoint_step
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(order=2, spacing="linspace", diffusers=("KDPM2AncestralDiscreteScheduler",))
def dpm2_ancestral(
    denoise: Denoiser, x: Tensor, levels: Levels, noise: Callable[[], Tensor], *, eta: float = 1.0
) -> Tensor:
    """Ancestral sampling with the steps of ``dpm2`` (``sample_dpm_2_ancestral`` of k-diffusion), weak order 2.

    Every step goes further down than its level and adds the noise that is then missing; that is exact in law, so that
    the error is the midpoint method's. Two evaluations per step, one in the last.

    Args:
        eta: share of the noise of the reverse process, 0 or more; 0 is ``dpm2``.
    """
    space = SigmaSpace.of(levels.schedule)
    for here, there in levels.pairs():
        down, up = ancestral_split(space.sigma(here), space.sigma(there), eta)
        landing = space.level(down)
        x = midpoint_step(space, denoise, x, here, landing)
        if up > 0:
            x = add_noise(x, landing, there, noise())
    return x
