"""Which levels a run visits: a named grid, an explicit list, or what `auto` means for a scheduler and a model."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffexp.components import grids
from diffexp.errors import InputError
from diffexp.plan.levels import Levels, Schedule, listed_steps
from diffexp.plan.training import Training

MakeLevels = Callable[[Schedule, int], Levels]

UNIFORM = ("linspace", "leading", "trailing")
"""Spacings that a checkpoint's config may name; where it names none, each class of diffusers has its own default."""


@dataclass(frozen=True)
class Grid:
    """Which levels to visit: a named grid, or an explicit list that is used as given."""

    name: str = "auto"
    """``auto`` is the model's own spacing, counted as the scheduler's class in diffusers counts."""
    make: MakeLevels | None = None
    """The grid function with its options; None for ``auto``."""
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None

    @property
    def explicit(self) -> bool:
        return self.timesteps is not None or self.sigmas is not None

    def is_left_open(self, training: Training) -> bool:
        """Whether neither the user nor the model says which levels, so that the scheduler may."""
        return self.name == "auto" and not self.explicit and training.own_levels is None

    @property
    def at_defaults(self) -> bool:
        """Whether no option of the grid function has been changed."""
        given = getattr(self.make, "keywords", {})
        parameters = inspect.signature(_function(self.make)).parameters if given else {}
        return all(value == parameters[name].default for name, value in given.items())

    def steps(self, asked: int) -> int:
        """The number of steps; an explicit list decides it."""
        listed = listed_steps(self.timesteps, self.sigmas)
        return asked if listed is None else listed

    def levels(self, training: Training, steps: int) -> Levels:
        """The levels for a model.

        Raises:
            InputError: both lists given, a list that is not usable, or steps out of range.
        """
        if self.timesteps is not None and self.sigmas is not None:
            raise InputError("give grid.timesteps or grid.sigmas, not both")
        if self.timesteps is not None:
            return grids.from_timesteps(training.schedule, self.timesteps)
        if self.sigmas is not None:
            return grids.from_sigmas(training.schedule, self.sigmas)
        make = self.make or _own_spacing(training)
        if _function(make) is grids.leading and getattr(make, "keywords", {}).get("offset") is None:
            make = functools.partial(grids.leading, offset=training.steps_offset)
        return make(training.schedule, steps)


def default_grid(traits: Mapping[str, Any], training: Training) -> Grid:
    """What ``auto`` is for a scheduler: the levels that diffusers' class of it visits with this checkpoint.

    Traits of a scheduler: ``grid`` is the one that it is made for. ``spacing`` is the default of its class, which holds
    where the checkpoint's config does not say. With ``spare_level`` the class makes uniform grids of one level more and
    never visits the lowest of them.
    """
    if "grid" in traits:
        return Grid(traits["grid"], getattr(grids, traits["grid"]))
    spacing = training.spacing
    if spacing in UNIFORM and training.scheduler_config and "timestep_spacing" not in training.scheduler_config:
        spacing = traits.get("spacing", spacing)
    if traits.get("spare_level") and spacing in ("linspace", "leading"):
        named = Grid(spacing, getattr(grids, spacing))
        return Grid(make=lambda schedule, steps: _with_spare_level(named, training, steps))
    return Grid() if spacing == training.spacing else Grid(make=getattr(grids, spacing))


def _with_spare_level(grid: Grid, training: Training, steps: int) -> Levels:
    possible = 1 <= steps < training.schedule.num_train_timesteps
    return grid.levels(training, steps + 1).without_lowest() if possible else grid.levels(training, steps)


def _own_spacing(training: Training) -> MakeLevels:
    if training.own_levels is not None:
        return training.own_levels
    known: dict[str, MakeLevels] = {
        "linspace": grids.linspace,
        "leading": grids.leading,
        "trailing": grids.trailing,
        "karras": grids.karras,
        "exponential": grids.exponential,
        "flow": grids.flow,
    }
    if training.spacing not in known:
        asked = f"the model's scheduler config asks for timestep_spacing={training.spacing}"
        raise InputError(f"{asked}; choose one of {', '.join(known)}")
    return known[training.spacing]


def _function(make: MakeLevels | None) -> Any:
    return make.func if isinstance(make, functools.partial) else make
