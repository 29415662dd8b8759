"""Grids that are spaced in sigma.

The schedule's own: sigma / alpha for VP and VE models (the ``sigma`` of k-diffusion), the path length for flow models.
"""

import math
from dataclasses import replace

import numpy as np

from diffexp import grid
from diffexp.components.grids.build import at_sigmas, check_steps, sigma_ends, sigma_range, with_clean_end
from diffexp.errors import InputError
from diffexp.plan.levels import Levels, Schedule
from diffexp.plan.schedules import FlowSchedule


@grid
def flow(schedule: Schedule, steps: int, *, shift: float | None = None, terminal: float | None = None) -> Levels:
    """Equally spaced along straight paths, shifted towards the noise (Esser et al. 2024, eq. 23): SD3's.

    From sigma = 1 to the model's lowest training sigma, which is shifted once more, as in SD3's reference code.
    Flux's pipelines take ``grid=trailing`` instead, with the same shift.

    Args:
        shift: sigma' = shift sigma / (1 + (shift - 1) sigma); 1 is none; null: the model's own. Larger images want
            more: the ``mu`` that Flux computes from the resolution is log(shift).
        terminal: stretch the grid so that its last level has this sigma, in (0, 1): shift_terminal of LTX and Qwen.

    Raises:
        InputError: the model is no flow model, or an option out of range.
    """
    check_steps(schedule, steps)
    if not isinstance(schedule, FlowSchedule):
        raise InputError("grid=flow needs a flow-matching model; choose linspace, leading, trailing or karras")
    shifted = replace(schedule, shift=schedule.shift if shift is None else shift).shifted
    lowest = shifted(1 / schedule.num_train_timesteps)
    sigmas = [shifted(sigma) for sigma in np.linspace(1.0, lowest, steps).tolist()]
    if terminal is not None:
        if not 0 < terminal < 1:
            raise InputError(f"grid.terminal={terminal:g} must lie between 0 and 1")
        stretch = (1 - terminal) / (1 - sigmas[-1]) if steps > 1 else 1.0
        sigmas = [1 - (1 - sigma) * stretch for sigma in sigmas]
    return at_sigmas(schedule, sigmas)


@grid
def karras(
    schedule: Schedule, steps: int, *, rho: float = 7.0, sigma_min: float | None = None, sigma_max: float | None = None
) -> Levels:
    """sigma^(1/rho) equally spaced (Karras et al. 2022, eq. 5); the range defaults to the training schedule's.

    Raises:
        InputError: rho of 0 or less, or an empty range.
    """
    check_steps(schedule, steps)
    _check_positive("rho", rho)
    low, high = sigma_range(schedule, sigma_min, sigma_max)
    return at_sigmas(schedule, (np.linspace(high ** (1 / rho), low ** (1 / rho), steps) ** rho).tolist())


@grid
def exponential(
    schedule: Schedule, steps: int, *, sigma_min: float | None = None, sigma_max: float | None = None
) -> Levels:
    """log sigma equally spaced: uniform in the log signal-to-noise ratio (Lu et al. 2022, section 3.1)."""
    return polyexponential(schedule, steps, sigma_min=sigma_min, sigma_max=sigma_max)


@grid
def polyexponential(
    schedule: Schedule, steps: int, *, rho: float = 1.0, sigma_min: float | None = None, sigma_max: float | None = None
) -> Levels:
    """log sigma equally spaced in the power rho (k-diffusion); more of the steps at low noise the higher rho is.

    Raises:
        InputError: rho of 0 or less, or an empty range.
    """
    check_steps(schedule, steps)
    _check_positive("rho", rho)
    low, high = sigma_range(schedule, sigma_min, sigma_max)
    ramp = np.linspace(1, 0, steps) ** rho
    return at_sigmas(schedule, np.exp(math.log(low) + ramp * (math.log(high) - math.log(low))).tolist())


@grid
def cosine(schedule: Schedule, steps: int, *, sigma_min: float | None = None, sigma_max: float | None = None) -> Levels:
    """arctan(sigma / alpha) equally spaced: the levels of the cosine schedule (Nichol & Dhariwal 2021, eq. 17).

    Also the grid of least Kullback-Leibler divergence on Gaussian data of unit variance (Sabour et al. 2024,
    arXiv:2404.14507, theorem 3.1), which ComfyUI calls kl_optimal. It may begin at pure noise.
    """
    check_steps(schedule, steps)
    low, high = (schedule.at_sigma(sigma) for sigma in sigma_ends(schedule, sigma_min, sigma_max))
    angles = np.linspace(math.atan(high.ratio), math.atan(low.ratio), steps).tolist()
    return with_clean_end(schedule, (high, *(schedule.at_ratio(math.tan(angle)) for angle in angles[1:])))


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"grid.{name}={value:g} must be greater than 0")
