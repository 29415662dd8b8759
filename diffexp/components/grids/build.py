"""Helpers for grid functions."""

import math
from collections.abc import Iterable

from diffexp.errors import InputError
from diffexp.plan.levels import CLEAN, Level, Levels, Schedule


def check_steps(schedule: Schedule, steps: int) -> None:
    """
    Raises:
        InputError: fewer than 1 step or more than the training has timesteps.
    """
    if steps < 1:
        raise InputError(f"steps={steps} must be at least 1")
    if steps > schedule.num_train_timesteps:
        raise InputError(
            f"steps={steps} is more than the {schedule.num_train_timesteps} timesteps of the model's training"
        )


def sigma_ends(schedule: Schedule, sigma_min: float | None, sigma_max: float | None) -> tuple[float, float]:
    """The ends of a grid in the schedule's own sigma, where none are given those of its training.

    Raises:
        InputError: an empty range, or one that goes beyond pure noise.
    """
    lowest, highest = schedule.sigma_range
    low = lowest if sigma_min is None else sigma_min
    high = highest if sigma_max is None else sigma_max
    if not 0 < low < high:
        raise InputError(f"grid.sigma_min={low:g} and grid.sigma_max={high:g} must satisfy 0 < sigma_min < sigma_max")
    if schedule.at_sigma(high).alpha < 0:
        raise InputError(f"grid.sigma_max={high:g} is beyond pure noise, which is {highest:g} for this model")
    return low, high


def sigma_range(
    schedule: Schedule, sigma_min: float | None = None, sigma_max: float | None = None
) -> tuple[float, float]:
    """Return ``sigma_ends`` for grids that cannot begin at infinite sigma.

    Raises:
        InputError: as there, or an infinite sigma.
    """
    low, high = sigma_ends(schedule, sigma_min, sigma_max)
    if math.isinf(high):
        raise InputError("this model's schedule ends at infinite sigma (zero terminal SNR): give grid.sigma_max")
    return low, high


def with_clean_end(schedule: Schedule, points: Iterable[Level], stride: int | None = None) -> Levels:
    """These levels and the clean end; the start sample is as noisy as the first of them."""
    visited = tuple(points)
    return Levels((*visited, CLEAN), schedule, visited[0].sigma, stride)


def at_sigmas(schedule: Schedule, sigmas: Iterable[float]) -> Levels:
    """The levels with these sigmas, in the schedule's own sense of the word, and the clean end."""
    return with_clean_end(schedule, (schedule.at_sigma(sigma) for sigma in sigmas))
