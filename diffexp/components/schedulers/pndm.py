"""Pseudo numerical methods for diffusion models."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.exponential import adams_bashforth
from diffexp.components.schedulers.shared.sigma_space import SigmaSpace
from diffexp.plan.levels import Level, Levels, Schedule
from diffexp.plan.method import Denoiser


@scheduler(discrete=True, order=2, spacing="leading", diffusers=("PNDMScheduler",))
def pndm(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    noise: Callable[[], Tensor],
    *,
    start: Literal["runge_kutta", "improved_euler"] = "improved_euler",
) -> Tensor:
    """PNDM (Liu et al. 2022, arXiv:2202.09778, algorithm 2): a linear multistep method with DDIM's transfer (eq. 9).

    A step goes along the mean (55, -59, 37, -9) / 24 of the last four noise estimates. Where the classical method
    would move x in a straight line, it follows the path of constant noise, ``SigmaSpace.move``. Order 2: the weights
    take noise to count evenly in time, which it does not.

    Args:
        start: how the first steps are taken, for which there are no earlier estimates. ``improved_euler``: the first
            step twice, the second time along the mean of both ends, then two and three estimates (Stable Diffusion's
            PLMS, ``skip_prk_steps`` of diffusers, steps + 1 evaluations). ``runge_kutta``: three steps with four
            evaluations each (the paper's F-PNDM, steps + 9 evaluations).
    """
    space = SigmaSpace.of(levels.schedule)
    slopes: list[Tensor] = []  # newest first

    def slope_at(x: Tensor, level: Level) -> Tensor:
        return space.slope(x, denoise(x, level), level)

    # Where the model's chain ends at its first training level, so does the last step.
    for here, there in replace(levels, stride=None).strided_pairs():
        slopes = [slope_at(x, here), *slopes[:3]]
        mean = adams_bashforth(slopes)
        if there.sigma and there.timestep < here.timestep:  # no slope belongs to the clean end
            if start == "runge_kutta" and len(slopes) <= 3:
                middle = _middle(levels.schedule, here, there)
                second = slope_at(space.move(x, slopes[0], here, middle), middle)
                third = slope_at(space.move(x, second, here, middle), middle)
                fourth = slope_at(space.move(x, third, here, there), there)
                mean = (slopes[0] + 2 * second + 2 * third + fourth) / 6
            elif start == "improved_euler" and len(slopes) == 1:
                mean = (mean + slope_at(space.move(x, mean, here, there), there)) / 2
        x = space.move(x, mean, here, there)
    return x


def _middle(schedule: Schedule, here: Level, there: Level) -> Level:
    """Halfway in time, on a training timestep where both ends are on one."""
    half = (here.timestep - there.timestep) / 2
    on_timesteps = schedule.discrete and here.timestep.is_integer() and there.timestep.is_integer()
    return schedule.at(there.timestep + (half // 1 if on_timesteps else half))
