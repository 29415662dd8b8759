"""DPM-Solver++ with a memory of two estimates, on the reverse SDE."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.exponential import FEW_STEPS, sde_step, slope_weight, step_length, step_orders
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(
    discrete=True,
    order=2,
    spacing="linspace",
    spare_level=True,
    diffusers=("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"),
)
def dpmpp_2m_sde(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    noise: Callable[[], Tensor],
    *,
    eta: float = 1.0,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
    lower_order_final: bool = True,
) -> Tensor:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095). One evaluation and one draw per step.

    ``dpmpp_2m`` with fresh noise, which forgets errors made earlier. Weak order 2.

    Args:
        eta: rate of the noise, >= 0; 1 is the reverse SDE of the forward process, 0 is ``dpmpp_2m``.
        solver_type: ``midpoint`` or ``heun``, as in ``dpmpp_2m``.
        lower_order_final: as in ``dpmpp_2m``.

    Raises:
        InputError: negative ``eta``.
    """
    before, previous = levels[0], x
    orders = step_orders(levels, 2, lower_order_final and levels.steps < FEW_STEPS)
    for (here, there), order in zip(levels.pairs(), orders):
        x0 = denoise(x, here)
        estimate = x0
        if order == 2:
            h = step_length(here, there)
            r = step_length(before, here) / h
            estimate = x0 + slope_weight(solver_type, -(1 + eta) * h) / r * (x0 - previous)
        x = sde_step(x, here, there, estimate, eta, noise)
        before, previous = here, x0
    return x
