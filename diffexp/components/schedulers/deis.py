"""Diffusion exponential integrator sampler."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.exponential import (
    FEW_STEPS,
    adams_weights,
    data_step,
    noise_step,
    step_orders,
)
from diffexp.plan.execute import weighted
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(discrete=True, order="order", spacing="linspace", spare_level=True, diffusers=("DEISMultistepScheduler",))
def deis(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    noise: Callable[[], Tensor],
    *,
    order: Literal[1, 2, 3] = 2,
    lower_order_final: bool = True,
) -> Tensor:
    """AB-DEIS (Zhang & Chen 2022, arXiv:2204.13902). One evaluation per step; order 1 is DDIM.

    The idea of Adams and Bashforth on an exponential integrator: a polynomial through the last noise estimates is
    integrated exactly. It is a polynomial in log(sigma / alpha), as in diffusers, whose class has no
    ``final_sigmas_type`` and always leaves the noise of the first training timestep in (``scheduler=diffusers/deis``).

    Args:
        order: number of noise estimates, 1 to 3.
        lower_order_final: use fewer and fewer estimates in the last steps, where there are fewer than 15 steps. A step
            to the clean end always uses the newest alone.
    """
    past: list[tuple[float, Tensor]] = []
    orders = step_orders(levels, order, lower_order_final and levels.steps < FEW_STEPS)
    for (here, there), points in zip(levels.pairs(), orders):
        x0 = denoise(x, here)
        past = [(here.log_snr, (x - here.alpha * x0) / here.sigma), *past[: order - 1]]
        if points == 1:
            x = data_step(x, here, there, x0)  # the same as noise_step, and finite at alpha = 0
        else:
            times, estimates = zip(*past[:points])
            weights = adams_weights(times, here.log_snr, there.log_snr, rate=1)
            x = noise_step(x, here, there, weighted(list(zip(weights, estimates))))
    return x
