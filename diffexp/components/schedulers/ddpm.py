"""Ancestral sampling of denoising diffusion probabilistic models."""

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor

from diffexp import scheduler
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(discrete=True, order=1, spacing="leading", diffusers=("DDPMScheduler",))
def ddpm(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    noise: Callable[[], Tensor],
    *,
    variance: Literal["fixed_small", "fixed_large"] = "fixed_small",
) -> Tensor:
    """DDPM (Ho, Jain & Abbeel 2020, arXiv:2006.11239, algorithm 2), on any subsequence of the training timesteps.

    One evaluation and one noise draw per step; the reverse SDE's first-order solver. Not to be confused with DDIM at
    eta = 1, which has the same mean and variance only while no x0 estimate is clipped.

    Args:
        variance: of the reverse step, section 3.2: ``fixed_small`` is the posterior's (beta-tilde, right where x0 is
            a point), ``fixed_large`` the forward step's (beta, right where x0 is standard normal). On a grid that ends
            above timestep 0, such as trailing, the latter adds noise in the last step too, as in diffusers.
    """
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        alpha_t = (here.alpha / there.alpha) ** 2
        beta_t = here.sigma**2 - alpha_t * there.sigma**2  # 1 - alpha_t, without its cancellation near the data
        # The posterior q(x_{t-1} | x_t, x0), eq. 7
        x = there.alpha * beta_t / here.sigma**2 * x0 + math.sqrt(alpha_t) * there.sigma**2 / here.sigma**2 * x
        if there.sigma > 0 or here.timestep > 0:
            # diffusers keeps the logarithm of the variance finite, also where the last step's is 0
            beta_tilde = max(there.sigma**2 / here.sigma**2 * beta_t, 1e-20)
            x = x + math.sqrt(beta_tilde if variance == "fixed_small" else beta_t) * noise()
    return x
