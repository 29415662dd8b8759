"""Timestep schedules of the checks, beside those that have a name: spaced in the logarithm of sigma / alpha."""

import math
from collections.abc import Callable

import numpy as np

from diffexp.components.grids.build import with_clean_end
from diffexp.components.grids.choice import Grid
from diffexp.plan.levels import Levels, Schedule

GIVEN = "given"
"""The name of a timestep schedule that is made of given levels."""
PATTERN = 12
"""Number of steps after which the random lengths of ``UNEVEN`` repeat, so that errors fall smoothly with the steps."""
UNLIKE = 3.0
"""The random lengths lie between a third of their median and three times it."""


def spaced(high: float, low: float, *, random: bool = False) -> Callable[[Schedule, int], Levels]:
    """Return a grid function from ``high`` to ``low`` in sigma / alpha, of equal or random steps in its logarithm."""
    lengths = np.ones(1)
    if random:
        limit = math.log(UNLIKE)
        lengths = np.exp(np.random.default_rng(0).uniform(-limit, limit, PATTERN))

    def make(schedule: Schedule, steps: int) -> Levels:
        places = np.cumsum([0.0, *np.resize(lengths, steps - 1)])
        ratios = high * (low / high) ** (places / max(places[-1], 1.0 if steps == 1 else 0.0))
        return with_clean_end(schedule, map(schedule.at_ratio, ratios.tolist()))

    return make


def on_whole_timesteps(make: Callable[[Schedule, int], Levels]) -> Grid:
    """The nearest levels of whole timesteps, for classes that take no others."""

    def rounded(schedule: Schedule, steps: int) -> Levels:
        levels = make(schedule, steps)
        return with_clean_end(schedule, [schedule.at(round(level.timestep)) for level in levels[:-1]])

    return Grid(GIVEN, rounded)


EVEN = Grid(GIVEN, spaced(20.0, 0.1))
UNEVEN = Grid(GIVEN, spaced(20.0, 0.1, random=True))
UNEVEN_WHOLE = on_whole_timesteps(spaced(20.0, 0.25, random=True))
SHORT = Grid(GIVEN, spaced(5.0, 0.3))
"""So short a path that errors change smoothly from one number of steps to the next, from five on."""
