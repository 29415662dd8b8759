"""Grids that are equally spaced in training time."""

import math
from dataclasses import replace

import numpy as np

from diffexp import grid
from diffexp.components.grids.build import check_steps, ending_clean
from diffexp.errors import InputError
from diffexp.plan.levels import Levels, Schedule
from diffexp.plan.training import Training


@grid
def linspace(schedule: Schedule, steps: int) -> Levels:
    """Equally spaced from the last training timestep to the first, both included (Lin et al. 2023, table 2)."""
    check_steps(schedule, steps)
    return _uniform(schedule, np.linspace(0, schedule.num_train_timesteps - 1, steps)[::-1], steps)


@grid
def leading(schedule: Schedule, steps: int, training: Training | None = None, *, offset: int | None = None) -> Levels:
    """Multiples of num_train_timesteps // steps, shifted by ``offset`` (null: the model's own steps_offset).

    Where the shifted grid would leave the training range, it is shifted as far as it fits.

    Raises:
        InputError: a negative offset.
    """
    check_steps(schedule, steps)
    if offset is not None and offset < 0:
        raise InputError(f"grid.offset={offset} must be at least 0")
    stride = schedule.num_train_timesteps // steps
    own = training.steps_offset if training else 0
    shift = min(own if offset is None else offset, schedule.num_train_timesteps - 1 - (steps - 1) * stride)
    levels = _uniform(schedule, np.arange(steps - 1, -1, -1.0) * stride + shift, steps)
    # The grid starts below full noise, so the start sample has the spread of a whole x, not of its noise alone.
    return replace(levels, start_std=math.hypot(levels[0].alpha, levels[0].sigma))


@grid
def trailing(schedule: Schedule, steps: int) -> Levels:
    """Equally spaced down from the last training timestep, never reaching the first (Lin et al. 2023, table 2)."""
    check_steps(schedule, steps)
    horizon = schedule.num_train_timesteps
    places = np.arange(horizon, 0, -horizon / steps)[:steps]
    return _uniform(schedule, (places.round() if schedule.discrete else places) - 1, steps)


@grid
def sgm_uniform(schedule: Schedule, steps: int) -> Levels:
    """``linspace`` of one step more without its last level: what Stability's sgm and ComfyUI call sgm_uniform.

    The levels are where the spacing puts them, between training timesteps, also for schedulers on a discrete chain.
    """
    check_steps(schedule, steps)
    places = np.linspace(schedule.num_train_timesteps - 1, 0, steps + 1)[:-1]
    return ending_clean(schedule, (schedule.at_index(place) for place in places.tolist()))


def _uniform(schedule: Schedule, places: np.ndarray, steps: int) -> Levels:
    stride = schedule.num_train_timesteps // steps if schedule.discrete else None
    return ending_clean(schedule, (schedule.at_index(place) for place in places.tolist()), stride)
