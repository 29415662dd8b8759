"""Timestep schedules at the quantiles of a beta distribution: most steps near both ends (Lee et al. 2024)."""

import math

import numpy as np

from diffexp import grid
from diffexp.components.grids.build import at_sigmas, check_steps, ending_clean, sigma_range
from diffexp.errors import InputError
from diffexp.plan.levels import Levels, Schedule


@grid
def beta(
    schedule: Schedule,
    steps: int,
    *,
    alpha: float = 0.6,
    beta: float = 0.6,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Levels:
    """Sigmas at beta quantiles between the ends of the training range (diffusers' use_beta_sigmas).

    diffusers applies the quantiles of Beta Sampling (Lee et al. 2024, arXiv:2407.12173) to sigma; the paper, and
    ComfyUI's ``beta``, apply them to training time. That one is ``beta_timesteps``.

    Args:
        alpha, beta: of the distribution, greater than 0; below 1 they pull the steps to low and to high noise.
        sigma_min, sigma_max: ends of the range; null: those of the training schedule.

    Raises:
        InputError: alpha or beta of 0 or less, or an empty range.
    """
    check_steps(schedule, steps)
    low, high = sigma_range(schedule, sigma_min, sigma_max)
    places = beta_quantiles(np.linspace(1, 0, steps), alpha, beta)
    return at_sigmas(schedule, (low + place * (high - low) for place in places))


@grid
def beta_timesteps(schedule: Schedule, steps: int, *, alpha: float = 0.6, beta: float = 0.6) -> Levels:
    """Training timesteps at beta quantiles (Lee et al. 2024, arXiv:2407.12173): what ComfyUI calls beta.

    ComfyUI rounds them to whole timesteps and drops those that then coincide; here they stay where they are, so that
    there are as many as asked for.

    Args:
        alpha, beta: of the distribution, greater than 0; below 1 they pull the steps to low and to high noise.

    Raises:
        InputError: alpha or beta of 0 or less.
    """
    check_steps(schedule, steps)
    places = beta_quantiles(1 - np.arange(steps) / steps, alpha, beta)
    last = schedule.num_train_timesteps - 1
    return ending_clean(schedule, (schedule.at_index(place * last) for place in places))


def beta_quantiles(probabilities: np.ndarray, alpha: float, beta: float) -> list[float]:
    """Quantiles in [0, 1] of a beta distribution, one per probability.

    Raises:
        InputError: alpha or beta of 0 or less.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 < value < math.inf:
            raise InputError(f"grid.{name}={value:g} must be greater than 0")
    from scipy import stats  # takes a second to import

    return stats.beta.ppf(probabilities, alpha, beta).tolist()
