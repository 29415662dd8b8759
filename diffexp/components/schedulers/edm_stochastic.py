"""The stochastic sampler of EDM."""

import math
from collections.abc import Callable

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.sigma_space import SigmaSpace, add_noise, heun_step
from diffexp.errors import InputError
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(order=2, spacing="linspace", diffusers=("HeunDiscreteScheduler",))
def edm_stochastic(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    noise: Callable[[], Tensor],
    *,
    s_churn: float = 5.0,
    s_tmin: float = 0.05,
    s_tmax: float = 50.0,
    s_noise: float = 1.0,
) -> Tensor:
    """Heun's method with churn (Karras et al. 2022, arXiv:2206.00364, algorithm 2), weak order 2.

    Before each step noise is added, and the step removes it as well: errors of earlier steps fade. Two evaluations a
    step, one in the last. Without churn it is ``heun``.

    Args:
        s_churn: amount of noise, 0 or more: a step starts at (1 + s_churn / steps) times its sigma, at most at sqrt(2)
            times. The paper's 40 for ImageNet-64 is for 256 steps, and as much a step as the default for 32.
        s_tmin, s_tmax: noise is added only where sigma / alpha is in this range.
        s_noise: standard deviation of the noise added; 1 is exact. The paper takes up to 1.007, to make up for
            networks that remove a little too much.
    """
    if s_churn < 0:
        raise InputError(f"scheduler.s_churn={s_churn:g} must be at least 0; 0 adds no noise")
    space = SigmaSpace.of(levels.schedule)
    gamma = min(s_churn / levels.steps, math.sqrt(2) - 1)
    for here, there in levels.pairs():
        # Where alpha = 0, x is all noise already.
        if gamma > 0 and s_tmin <= here.ratio <= s_tmax and here.alpha:
            hat = levels.schedule.at_ratio((1 + gamma) * here.ratio)
            x, here = add_noise(x, here, hat, s_noise * noise()), hat
        x = heun_step(space, denoise, x, here, there)
    return x
