"""Noise levels, and the levels that a solver visits.

Everywhere ``x = alpha * x0 + sigma * eps`` with ``eps ~ N(0, I)``. Timesteps grow with the noise; sampling runs
from high to low. Numbers are Python floats (float64), so that coefficients carry no float32 rounding.

Two things are called sigma in the field. ``Level.sigma`` is the one of this formula, the standard deviation of the
noise, which files call ``noise_std``. The sigma *of a schedule* is the one of k-diffusion, EDM and diffusers' tables:
sigma / alpha for VP and VE models, the path length for flows. It is what ``grid.sigmas`` takes (``Schedule.at_sigma``,
``sigma_of``), and what trackers and pictures call sigma.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, overload


@dataclass(frozen=True, slots=True)
class Level:
    """One point of a noise schedule."""

    timestep: float
    """Time input of the network; may be fractional."""
    alpha: float
    """Scale of the clean sample, in [0, 1]."""
    sigma: float
    """Standard deviation of the noise in x, >= 0; a VP schedule's sigma is ``ratio`` (see above)."""

    @property
    def ratio(self) -> float:
        """Noise-to-signal ratio sigma / alpha: the ``sigma`` of k-diffusion and EDM; inf without signal."""
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def log_snr(self) -> float:
        """Half log signal-to-noise ratio, log(alpha / sigma): the ``lambda`` of DPM-Solver."""
        return -math.log(self.ratio) if self.ratio else math.inf

    def scaled(self, factor: float) -> "Level":
        """The level of ``factor * x``."""
        return self if factor == 1 else replace(self, alpha=self.alpha * factor, sigma=self.sigma * factor)


CLEAN = Level(timestep=0.0, alpha=1.0, sigma=0.0)
"""No noise: where sampling ends."""


class Schedule(Protocol):
    """A training noise schedule: every level a model can be evaluated at (see ``diffexp.plan.schedules``)."""

    @property
    def num_train_timesteps(self) -> int: ...

    @property
    def discrete(self) -> bool:
        """Whether the network was trained on whole timesteps 0 .. num_train_timesteps - 1 only."""
        ...

    @property
    def final(self) -> Level:
        """The level a strided chain (DDIM) ends at: fully clean, or the first training level."""
        ...

    @property
    def timestep_range(self) -> tuple[float, float]:
        """The lowest and highest timestep that the network was trained on."""
        ...

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The lowest and highest training level in the schedule's own sigma (see ``at_sigma``)."""
        ...

    def at(self, timestep: float) -> Level:
        """The level at a timestep, fractional ones included."""
        ...

    def at_index(self, index: float) -> Level:
        """The level at a place in [0, num_train_timesteps - 1], on the axis along which training draws evenly."""
        ...

    def at_ratio(self, ratio: float) -> Level:
        """The level with noise-to-signal ratio sigma / alpha, at whatever timestep that is."""
        ...

    def at_sigma(self, sigma: float) -> Level:
        """The level with this sigma, in the coordinate that its field calls so: ratio, or the flow's path length."""
        ...

    def sigma_of(self, level: Level) -> float:
        """The inverse of ``at_sigma``."""
        ...

    def input_scale(self, level: Level) -> float:
        """Factor between x and the network's input."""
        ...


@dataclass(frozen=True)
class Levels(Sequence[Level]):
    """The levels a solver visits: one per step from high noise to low, then the clean end. ``len`` is steps + 1."""

    points: tuple[Level, ...]
    schedule: Schedule
    start_std: float
    """Standard deviation of the start sample for a solver on continuous levels."""
    stride: int | None = None
    """Training timesteps per step where the grid is uniform in time (num_train_timesteps // steps), else None."""

    @overload
    def __getitem__(self, index: int) -> Level: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Level, ...]: ...
    def __getitem__(self, index: int | slice) -> Level | tuple[Level, ...]:
        return self.points[index]

    def __len__(self) -> int:
        return len(self.points)

    @property
    def steps(self) -> int:
        return len(self.points) - 1

    def pairs(self) -> Iterator[tuple[Level, Level]]:
        """(where the step starts, where it lands) for every step."""
        return pairwise(self.points)

    def strided_pairs(self) -> Iterator[tuple[Level, Level]]:
        """Yield ``pairs``; a step of a uniform grid lands ``stride`` training timesteps lower, as in diffusers' DDIM.

        On the leading grid that is the next level; on linspace and trailing it can lie beside it.
        """
        for here, there in self.pairs():
            if self.stride is None:
                yield here, there if there.sigma else self.schedule.final
            else:
                target = here.timestep - self.stride
                yield here, self.schedule.at(target) if target >= 0 else self.schedule.final

    def part(self, begin: int, end: int) -> "Levels":
        """The levels of the steps ``begin`` up to but without ``end``, as a grid of their own."""
        points = self.points[begin : end + 1]
        return replace(self, points=points, start_std=self.start_std if begin == 0 else points[0].sigma)

    def without_lowest(self) -> "Levels":
        """One step less: from the lowest level but one straight to the clean end."""
        return replace(self, points=(*self.points[:-2], self.points[-1]))

    def on_training_timesteps(self) -> "Levels":
        """The same grid for a discrete chain: uniform grids are rounded to training timesteps, the start is N(0, I).

        A model that was trained on continuous time has no such chain; its grid is left as it is.
        """
        if not self.schedule.discrete:
            return self
        points = self.points
        if self.stride is not None:
            points = (*(self.schedule.at(round(level.timestep)) for level in points[:-1]), points[-1])
        return replace(self, points=points, start_std=1.0)


def listed_steps(timesteps: Sequence[float] | None, sigmas: Sequence[float] | None) -> int | None:
    """Return the number of steps of an explicit list, of sigmas with or without the clean end; None without a list."""
    if timesteps is not None:
        return len(timesteps)
    return None if sigmas is None else len(sigmas) - (len(sigmas) > 0 and sigmas[-1] == 0)
