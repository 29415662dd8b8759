"""Sampling of latent consistency models."""

import math
from collections.abc import Callable

from torch import Tensor

from diffexp import scheduler
from diffexp.plan.levels import Level, Levels
from diffexp.plan.method import Denoiser


@scheduler(discrete=True, consistency=True, grid="lcm", diffusers=("LCMScheduler",))
def lcm(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    noise: Callable[[], Tensor],
    *,
    timestep_scaling: float = 10.0,
    sigma_data: float = 0.5,
) -> Tensor:
    """Multistep consistency sampling of latent consistency models (Luo et al. 2023, arXiv:2310.04378).

    Each step estimates the data and puts fresh noise on it, all the way down to the next level: one evaluation and one
    draw per step, no draw in the last. For networks that were distilled to it: it does not solve the diffusion ODE, so
    that with any other network more steps do not converge to its samples. By default it visits the timesteps of
    distillation (``grid=lcm``).

    Args:
        timestep_scaling: s in the consistency function f(x, t) = c_skip x + c_out x0, which is x at t = 0:
            c_skip = sigma_data^2 / ((s t)^2 + sigma_data^2), c_out = s t / sqrt((s t)^2 + sigma_data^2).
        sigma_data: standard deviation of the data, as the distillation took it.
    """

    def consistent(x: Tensor, level: Level) -> Tensor:
        x0 = denoise(x, level)
        if not levels.schedule.discrete:  # without timesteps that count from 0, the network's estimate is f itself
            return x0
        time = timestep_scaling * level.timestep
        return (sigma_data / math.hypot(time, sigma_data)) ** 2 * x + time / math.hypot(time, sigma_data) * x0

    for here, there in levels.pairs():
        x0 = consistent(x, here)
        x = there.alpha * x0 + there.sigma * noise() if there.sigma else x0
    return x
