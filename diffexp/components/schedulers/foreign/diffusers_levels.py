"""Levels of scheduler objects of diffusers: those they visit, and how to make them visit given ones."""

import copy
import inspect
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from diffexp.catalog.quirks import quirks_of
from diffexp.errors import InputError
from diffexp.plan.levels import Level, Levels, Schedule
from diffexp.plan.training import Training

REFUSALS = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    ImportError,
)
"""Exceptions that scheduler classes raise for option values and step counts that they do not accept."""


def level_of_timestep(schedule: Schedule, scheduler: Any, timestep: float) -> Level:
    """The level of a timestep by the model's schedule, whatever the scheduler computes with."""
    low, high = schedule.timestep_range
    return schedule.at(min(max(timestep, low), high))


def level_of_tables(schedule: Schedule, scheduler: Any, timestep: float) -> Level:
    """The level that a scheduler computes with at its current step; that of the timestep if it has no such table.

    The timestep that the network gets is a rounded one in several classes.
    """
    index = getattr(scheduler, "step_index", None)
    if index is None:
        index = getattr(scheduler, "begin_index", None) or 0
    quirks, table = quirks_of(type(scheduler)), getattr(scheduler, "sigmas", None)
    if not getattr(scheduler, "state_in_first_order", True) and hasattr(scheduler, "sigmas_interpol"):
        table, index = scheduler.sigmas_interpol, index + quirks.midpoint  # second evaluation of DPM2's steps
    if table is None and quirks.noise_and_signal:
        sigmas, alphas = (getattr(scheduler, name) for name in quirks.noise_and_signal)
        return schedule.at_ratio(float(sigmas[index] / alphas[index]))
    if table is None or index >= len(table) or not float(table[index]) > 0:
        return level_of_timestep(schedule, scheduler, timestep)
    return schedule.at_sigma(float(table[index]))


def set_timesteps_arguments(scheduler: Any, levels: Levels, grid_name: str) -> dict[str, Any]:
    """The arguments of ``set_timesteps`` that make a scheduler visit exactly these levels.

    Raises:
        InputError: the scheduler takes no such list, or would make something else of it.
    """
    schedule = levels.schedule
    timesteps = [level.timestep for level in levels[:-1]]
    sigmas = [schedule.sigma_of(level) for level in levels]
    # Some classes want the clean end in the list, some an array.
    offers: list[dict[str, Any]] = [{"sigmas": form(s)} for s in (sigmas, sigmas[:-1]) for form in (list, np.array)]
    if all(t == int(t) for t in timesteps):
        offers.insert(0, {"timesteps": [int(t) for t in timesteps]})
    taken = inspect.signature(scheduler.set_timesteps).parameters
    for offer in (offer for offer in offers if offer.keys() <= taken.keys()):
        trial = copy.deepcopy(scheduler)
        try:
            trial.set_timesteps(**offer)
        except REFUSALS:
            continue
        if _visits(trial, timesteps, sigmas[:-1]):
            return offer
    name = type(scheduler).__name__
    raise InputError(
        f"{name} cannot visit exactly the levels of grid={grid_name}; use grid=auto or a scheduler without diffusers/"
    )


def _visits(prepared: Any, timesteps: Sequence[float], sigmas: Sequence[float]) -> bool:
    """Whether a scheduler visits these levels, apart from repeats (two evaluations per step)."""
    visited = [float(t) for t, _ in groupby(prepared.timesteps.tolist())]
    table = getattr(prepared, "sigmas", None)
    if table is None or len(table) != len(prepared.timesteps) + 1:
        return visited == list(timesteps)
    own = [float(sigma) for sigma, _ in groupby(table.tolist()[:-1])]
    # A scheduler that knows the sigmas may round the timesteps for the network, or interpolate them in its own way.
    slack = 1e-2 if prepared.timesteps.dtype.is_floating_point else 1.0
    return _close(visited, timesteps, slack) and _close(own, sigmas, 0.0)


def _close(a: Sequence[float], b: Sequence[float], slack: float) -> bool:
    """Whether two lists are equal up to float32 and ``slack``."""
    return len(a) == len(b) and all(math.isclose(x, y, rel_tol=2e-5, abs_tol=slack) for x, y in zip(a, b))


def pipeline_keywords(scheduler: Any, training: Training, steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the checkpoint's pipeline passes to ``set_timesteps`` of a scheduler: instead of the steps, and besides.

    Raises:
        InputError: the class cannot shift its levels by the size of the image.
    """
    if training.set_timesteps is None:
        return {}, {}
    given = dict(training.set_timesteps(steps, scheduler.config))
    taken = inspect.signature(scheduler.set_timesteps).parameters
    if given.get("mu") is not None and "mu" not in taken:
        name = type(scheduler).__name__
        raise InputError(f"{name} cannot shift its levels by the size of the image, as this checkpoint's pipeline does")
    known = {key: value for key, value in given.items() if key in taken and value is not None}
    return {key: known.pop(key) for key in ("sigmas", "timesteps") if key in known}, known
