"""The choice of levels: a named grid, an explicit list, or the meaning of ``auto`` for a scheduler and a model."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffexp.catalog.signatures import injected_parameters
from diffexp.components import grids
from diffexp.components.schedulers.foreign.diffusers_auto import says_more, visits
from diffexp.components.schedulers.foreign.diffusers_config import AUTO
from diffexp.errors import InputError
from diffexp.plan.levels import Levels, listed_steps
from diffexp.plan.training import Training

MakeLevels = Callable[..., Levels]
"""A grid function (schedule, steps) -> levels, or (schedule, steps, training) -> levels."""

UNIFORM = ("linspace", "leading", "trailing")
"""Spacings that a checkpoint's config may name; where it names none, each class of diffusers has its own default."""
SPACINGS = (*UNIFORM, "karras", "exponential", "flow")
"""Grids that a model's training may name as its own."""


@dataclass(frozen=True)
class Grid:
    """A timestep schedule: a named grid, or an explicit list that is used as given."""

    name: str = AUTO
    """``auto``: the model's own spacing; where its config names none, that of the scheduler's class in diffusers."""
    make: MakeLevels | None = None
    """The grid function with its options; None for ``auto``."""
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None

    @classmethod
    def named(cls, name: str) -> "Grid":
        """A built-in grid with its default options."""
        return cls(name, grids.BY_NAME[name])

    @property
    def explicit(self) -> bool:
        """Whether the levels are listed one by one."""
        return self.timesteps is not None or self.sigmas is not None

    @property
    def is_auto(self) -> bool:
        """Whether the levels are left to the model and the scheduler."""
        return self.name == AUTO and self.make is None and not self.explicit

    @property
    def is_plain(self) -> bool:
        """Whether the grid is nothing but its name: no list, no changed option."""
        if self.name == AUTO or self.explicit:
            return False
        given = getattr(self.make, "keywords", {})
        parameters = inspect.signature(self.make.func).parameters if isinstance(self.make, functools.partial) else {}
        return all(value == parameters[name].default for name, value in given.items())

    def steps(self, asked: int) -> int:
        """The number of steps: ``asked``, or the length of the explicit list."""
        listed = listed_steps(self.timesteps, self.sigmas)
        return asked if listed is None else listed

    def levels(self, training: Training, steps: int) -> Levels:
        """The levels for a model.

        Raises:
            InputError: both lists given, a list that is not usable, or steps out of range.
        """
        schedule = training.schedule
        match self.timesteps, self.sigmas:
            case None, None:
                make = self.make or _own_spacing(training)
                return make(schedule, steps, *[training for _ in injected_parameters("grid", make)])
            case timesteps, None:
                return grids.from_timesteps(schedule, timesteps)
            case None, sigmas:
                return grids.from_sigmas(schedule, sigmas)
        raise InputError("give grid.timesteps or grid.sigmas, not both")


def default_grid(traits: Mapping[str, Any], training: Training) -> Grid:
    """The meaning of ``auto`` for a scheduler: the levels that diffusers' class of it visits with this checkpoint.

    Traits of a scheduler: ``grid`` is the one that it is made for. ``diffusers`` are the classes that it equals, one
    for each kind of model. ``spacing`` is the default of its class, which holds where the checkpoint's config names
    none. With ``spare_level`` the class makes uniform grids of one level more and never visits the lowest of them.
    """
    names, plain = traits.get("diffusers", ()), _plain_grid(traits, training)
    if ("grid" in traits and not names) or not says_more(training):
        return plain

    def levels(_: Any, steps: int) -> Levels:
        grids.check_steps(training.schedule, steps)
        found = visits(names, training, steps)
        return found[0] if found else plain.levels(training, steps)

    return Grid(make=levels)


def _plain_grid(traits: Mapping[str, Any], training: Training) -> Grid:
    """The levels of a config that has nothing but a spacing."""
    if "grid" in traits:
        return Grid.named(traits["grid"])
    spacing = training.spacing
    if spacing in UNIFORM and training.scheduler_config and "timestep_spacing" not in training.scheduler_config:
        spacing = traits.get("spacing", spacing)
    if traits.get("spare_level") and spacing in ("linspace", "leading"):
        return Grid(make=lambda _, steps: _with_spare_level(Grid.named(spacing), training, steps))
    return Grid() if spacing == training.spacing else Grid(make=grids.BY_NAME[spacing])


def _with_spare_level(grid: Grid, training: Training, steps: int) -> Levels:
    possible = 1 <= steps < training.schedule.num_train_timesteps
    return grid.levels(training, steps + 1).without_lowest() if possible else grid.levels(training, steps)


def _own_spacing(training: Training) -> MakeLevels:
    if training.spacing not in SPACINGS:
        asked = f"the model's scheduler config has timestep_spacing={training.spacing}"
        raise InputError(f"{asked}; choose one of {', '.join(SPACINGS)}")
    return grids.BY_NAME[training.spacing]
