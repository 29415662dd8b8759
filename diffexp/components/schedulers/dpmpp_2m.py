"""DPM-Solver++ with a memory of two estimates."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.exponential import (
    FEW_STEPS,
    data_step,
    slope_weight,
    step_length,
    step_orders,
)
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(
    discrete=True,
    order=2,
    spacing="linspace",
    spare_level=True,
    diffusers=("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"),
)
def dpmpp_2m(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    noise: Callable[[], Tensor],
    *,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
    lower_order_final: bool = True,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2). One evaluation per step; order 2.

    The last two x0 estimates tell how x0 changes over the step to come. A step to the clean end uses the newest alone.

    Args:
        solver_type: ``midpoint`` is the paper's algorithm 2; ``heun`` integrates the changing x0 exactly.
        lower_order_final: use the newest estimate alone in the last step, where there are fewer than 15 steps; only
            matters for levels that end above clean.
    """
    before, previous = levels[0], x
    orders = step_orders(levels, 2, lower_order_final and levels.steps < FEW_STEPS)
    for (here, there), order in zip(levels.pairs(), orders):
        x0 = denoise(x, here)
        estimate = x0
        if order == 2:
            h = step_length(here, there)
            r = step_length(before, here) / h
            estimate = x0 + slope_weight(solver_type, -h) / r * (x0 - previous)
        x = data_step(x, here, there, estimate)
        before, previous = here, x0
    return x
