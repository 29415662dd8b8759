"""Lists of timesteps or sigmas: used as they are, or refused with a reason."""

import math
from collections.abc import Iterable
from itertools import pairwise
from numbers import Real
from typing import Any

from diffexp.components.grids.build import at_sigmas, with_clean_end
from diffexp.errors import InputError
from diffexp.plan.levels import Levels, Schedule

SLACK = 1e-3
"""Relative; admits the ends of a range as people copy them, printed with a few digits."""


def from_timesteps(schedule: Schedule, timesteps: Iterable[float]) -> Levels:
    """Exactly these training timesteps, fractional ones included, then the clean end.

    Raises:
        InputError: no list of numbers, empty, not strictly decreasing, outside the training range, or with a clean
            level in it (timestep 0 of a flow model), which is where the grid ends by itself.
    """
    given = _decreasing("grid.timesteps", timesteps)
    low, high = schedule.timestep_range
    for value in given:
        if not low <= value <= high:
            raise InputError(f"grid.timesteps: {value:g} is outside the model's training range {low:g}..{high:g}")
    levels = with_clean_end(schedule, (schedule.at(value) for value in given))
    if any(level.sigma == 0 for level in levels[:-1]):
        raise InputError(f"grid.timesteps: {given[-1]:g} is the clean end, which every grid has; leave it out")
    return levels


def from_sigmas(schedule: Schedule, sigmas: Iterable[float]) -> Levels:
    """Exactly these sigmas, then the clean end (a trailing 0 may be given or not).

    They are noise-to-signal ratios sigma / alpha (the ``sigma`` of k-diffusion) for VP and VE models, and the length
    of the path from the data, in (0, 1], for flow models.

    Raises:
        InputError: no list of numbers, empty, not strictly decreasing, or outside the training range.
    """
    given = _decreasing("grid.sigmas", sigmas)
    given = given[:-1] if given[-1] == 0 and len(given) > 1 else given
    low, high = schedule.sigma_range
    for value in given:
        if not low * (1 - SLACK) <= value <= high * (1 + SLACK) or schedule.at_sigma(value).alpha < 0:
            raise InputError(f"grid.sigmas: {value:g} is outside the model's training range {low:.4g}..{high:.4g}")
    return at_sigmas(schedule, given)


def _decreasing(name: str, values: Any) -> list[float]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InputError(f"{name}={values!r} is not a list of numbers")
    given = [value.item() if hasattr(value, "item") else value for value in values]
    for value in given:
        if not isinstance(value, Real) or isinstance(value, bool) or math.isnan(value):
            raise InputError(f"{name}: {value!r} is not a number")
    if not given:
        raise InputError(f"{name} is empty; give at least one value, highest first")
    for before, after in pairwise(given):
        if not before > after:
            raise InputError(f"{name} must be strictly decreasing, but {after:g} follows {before:g}")
    return [float(value) for value in given]
