"""Which levels a solver visits. Any solver takes any grid.

Uniform grids (linspace, leading, trailing) are equally spaced in training time; the others are spaced in the
schedule's own sigma: sigma / alpha for VP and VE models (the ``sigma`` of k-diffusion), the path length for flow
models. Counts and roundings are diffusers', so that equal names mean equal levels.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from diffexp.errors import InputError
from diffexp.levels import CLEAN, Levels, Schedule
from diffexp.registry import grid
from diffexp.schedules import FlowSchedule


@grid
def linspace(schedule: Schedule, steps: int) -> Levels:
    """Equally spaced from the last training timestep to the first, both included (Lin et al. 2023, table 2)."""
    check_steps(schedule, steps)
    indices = np.linspace(0, schedule.num_train_timesteps - 1, steps)[::-1]
    return _uniform(schedule, indices.tolist(), steps)


@grid
def leading(schedule: Schedule, steps: int, *, offset: int | None = None) -> Levels:
    """Multiples of num_train_timesteps // steps, shifted by ``offset`` (null: the model's own steps_offset)."""
    check_steps(schedule, steps)
    stride = schedule.num_train_timesteps // steps
    indices = [min(k * stride + (offset or 0), schedule.num_train_timesteps - 1) for k in reversed(range(steps))]
    levels = _uniform(schedule, [float(i) for i in indices], steps)
    # The grid starts below full noise, so the start sample has the spread of a whole x, not of its noise alone.
    return replace(levels, start_std=math.hypot(levels[0].alpha, levels[0].sigma))


@grid
def trailing(schedule: Schedule, steps: int) -> Levels:
    """Equally spaced down from the last training timestep, never reaching the first (Lin et al. 2023, table 2)."""
    check_steps(schedule, steps)
    horizon = schedule.num_train_timesteps
    indices = np.arange(horizon, 0, -horizon / steps).round() - 1
    return _uniform(schedule, indices.tolist()[:steps], steps)


@grid
def flow(schedule: Schedule, steps: int, *, shift: float | None = None) -> Levels:
    """Equally spaced along straight paths, then shifted towards the noise (Esser et al. 2024, eq. 23), as SD3 has it.

    From sigma = 1 to the model's lowest training sigma, which is shifted once more, as in SD3's reference code.

    Args:
        shift: 1 is none; null: the model's own. Larger images want more.

    Raises:
        InputError: the model is no flow model.
    """
    check_steps(schedule, steps)
    if not isinstance(schedule, FlowSchedule):
        raise InputError("grid=flow needs a flow-matching model; choose linspace, leading, trailing or karras")
    shifted = replace(schedule, shift=schedule.shift if shift is None else shift).shifted
    lowest = shifted(1 / schedule.num_train_timesteps)
    return _by_sigma(schedule, [shifted(sigma) for sigma in np.linspace(1.0, lowest, steps).tolist()])


@grid
def karras(
    schedule: Schedule, steps: int, *, rho: float = 7.0, sigma_min: float | None = None, sigma_max: float | None = None
) -> Levels:
    """sigma^(1/rho) equally spaced (Karras et al. 2022, eq. 5); the range defaults to the training schedule's."""
    check_steps(schedule, steps)
    if rho <= 0:
        raise InputError(f"grid.rho={rho:g} must be greater than 0")
    low, high = sigma_range(schedule, sigma_min, sigma_max)
    return _by_sigma(schedule, (np.linspace(high ** (1 / rho), low ** (1 / rho), steps) ** rho).tolist())


@grid
def exponential(
    schedule: Schedule, steps: int, *, sigma_min: float | None = None, sigma_max: float | None = None
) -> Levels:
    """log sigma equally spaced: uniform in the log signal-to-noise ratio (Lu et al. 2022, section 3.1)."""
    check_steps(schedule, steps)
    low, high = sigma_range(schedule, sigma_min, sigma_max)
    return _by_sigma(schedule, np.exp(np.linspace(math.log(high), math.log(low), steps)).tolist())


def from_timesteps(schedule: Schedule, timesteps: Sequence[float]) -> Levels:
    """Exactly these training timesteps, then the clean end.

    Raises:
        InputError: empty, not strictly decreasing, or outside the training range.
    """
    _check_decreasing("grid.timesteps", timesteps)
    points = tuple(schedule.at(t) for t in timesteps)
    return Levels((*points, CLEAN), schedule, points[0].sigma)


def from_sigmas(schedule: Schedule, sigmas: Sequence[float]) -> Levels:
    """Exactly these noise-to-signal ratios sigma / alpha, then the clean end (a trailing 0 may be given or not).

    Raises:
        InputError: empty, not strictly decreasing, negative, or outside the training range.
    """
    given = list(sigmas[:-1]) if sigmas and sigmas[-1] == 0 else list(sigmas)
    _check_decreasing("grid.sigmas", given)
    low, high = schedule.sigma_range
    for value in given:
        # A relative slack admits the ends as people copy them, printed with a few digits.
        if not low * (1 - 1e-3) <= value <= high * (1 + 1e-3):
            raise InputError(f"grid.sigmas: {value:g} is outside the model's training range {low:.4g}..{high:.4g}")
    return _by_sigma(schedule, given)


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


def _check_decreasing(name: str, values: Sequence[float]) -> None:
    if not values:
        raise InputError(f"{name} is empty; give at least one value, highest first")
    for before, after in pairwise(values):
        if not before > after:
            raise InputError(f"{name} must be strictly decreasing, but {after:g} follows {before:g}")


def _uniform(schedule: Schedule, indices: list[float], steps: int) -> Levels:
    points = tuple(schedule.at_index(i) for i in indices)
    stride = schedule.num_train_timesteps // steps if schedule.discrete else None
    return Levels((*points, CLEAN), schedule, points[0].sigma, stride)


def _by_sigma(schedule: Schedule, sigmas: list[float]) -> Levels:
    points = tuple(schedule.at_sigma(sigma) for sigma in sigmas)
    return Levels((*points, CLEAN), schedule, points[0].sigma)


def sigma_range(schedule: Schedule, sigma_min: float | None, sigma_max: float | None) -> tuple[float, float]:
    """The ends of a grid in the schedule's own sigma, where none are given those of its training.

    Raises:
        InputError: an empty range, or one that would begin at infinite sigma.
    """
    lowest, highest = schedule.sigma_range
    low = lowest if sigma_min is None else sigma_min
    high = highest if sigma_max is None else sigma_max
    if math.isinf(high):
        raise InputError("this model's schedule ends at infinite sigma (zero terminal SNR): give grid.sigma_max")
    if not 0 < low < high:
        raise InputError(f"grid.sigma_min={low:g} and grid.sigma_max={high:g} must satisfy 0 < sigma_min < sigma_max")
    return low, high
