"""Denoising diffusion implicit models."""

import math
from collections.abc import Callable

from torch import Tensor

from diffexp import scheduler
from diffexp.errors import InputError
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(discrete=True, order=1, spacing="leading", diffusers=("DDIMScheduler",))
def ddim(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    noise: Callable[[], Tensor],
    *,
    eta: float = 0.0,
    use_clipped_model_output: bool = False,
    constant_stride: bool = True,
) -> Tensor:
    """DDIM (Song, Meng & Ermon 2020, arXiv:2010.02502, eq. 12). One evaluation per step; order 1 at eta = 0.

    Args:
        eta: 0 is deterministic (and the same method as ``euler``, up to the scaling of x), 1 is as noisy as DDPM.
        use_clipped_model_output: step along the noise that belongs to the clipped x0 instead of the one predicted; for
            models that clip, under guidance above all, where the two drift apart.
        constant_stride: land num_train_timesteps // steps below each timestep, as diffusers does. On ``linspace``
            and ``trailing`` grids that is not always the next timestep of the grid; false always steps to that one.

    Raises:
        InputError: negative ``eta``.
    """
    if eta < 0:
        raise InputError(f"scheduler.eta={eta:g} must be at least 0; 0 adds no noise")
    for here, there in levels.strided_pairs() if constant_stride else levels.pairs():
        x0, eps = denoise.predict(x, here)
        if use_clipped_model_output:
            eps = (x - here.alpha * x0) / here.sigma
        beta_t = here.sigma**2 - (here.alpha / there.alpha * there.sigma) ** 2
        std = eta * math.sqrt(max(there.sigma**2 / here.sigma**2 * beta_t, 0.0))  # eq. 16
        x = there.alpha * x0 + math.sqrt(max(there.sigma**2 - std**2, 0.0)) * eps
        if eta > 0:
            x = x + std * noise()
    return x
