"""Binding: a scheduler (function, k-diffusion-style function, class, plan), a grid and a model become one method."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diffexp import grids
from diffexp.errors import InputError
from diffexp.levels import Level, Levels, Schedule, listed_steps
from diffexp.plan.class_config import Accepted, spelling
from diffexp.plan.compile import Sampler, compile_or_direct
from diffexp.plan.diffusers_class import ClassMethod, build_class, refusals, visiting
from diffexp.plan.k_diffusion import from_k_diffusion, in_k_diffusion_convention
from diffexp.plan.method import FunctionMethod, Method, Spec
from diffexp.plan.plan import Plan
from diffexp.registry import registration

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

    def is_left_open(self, spec: Spec) -> bool:
        """Whether neither the user nor the model says which levels, so that the scheduler may."""
        return self.name == "auto" and not self.explicit and getattr(spec, "own_levels", None) is None

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

    def levels(self, spec: Spec, steps: int) -> Levels:
        """The levels for a model.

        Raises:
            InputError: both lists given, a list that is not usable, or steps out of range.
        """
        if self.timesteps is not None and self.sigmas is not None:
            raise InputError("give grid.timesteps or grid.sigmas, not both")
        if self.timesteps is not None:
            return grids.from_timesteps(spec.schedule, self.timesteps)
        if self.sigmas is not None:
            return grids.from_sigmas(spec.schedule, self.sigmas)
        make = self.make or _own_spacing(spec)
        if _function(make) is grids.leading and getattr(make, "keywords", {}).get("offset") is None:
            make = functools.partial(grids.leading, offset=spec.steps_offset)
        return make(spec.schedule, steps)


@dataclass(frozen=True)
class Part:
    """A sampler for some consecutive steps."""

    sampler: Sampler
    start: Level
    """Where it starts: at ``x = alpha * x0 + sigma * eps``."""
    end: Level
    """Where its output is; the clean end for the last steps."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a sampler is made of, so that one for other or fewer steps can be made of the same."""

    scheduler: Any
    steps: int
    spec: Spec
    grid: Grid = field(default_factory=Grid)
    options: Mapping[str, Any] = field(default_factory=dict)
    _parts: dict[tuple[int, int], Part] = field(default_factory=dict, init=False, repr=False)

    def sampler(self) -> Sampler:
        """For all steps; see ``build_sampler``."""
        return build_sampler(self.scheduler, **self._arguments())

    def part(self, begin: int, end: int | None = None) -> Part:
        """For the steps ``begin`` up to but without ``end``, on the same levels, as if there were no others.

        A multistep method begins it without a history, with its lower orders, as at the start of a whole run.

        Raises:
            InputError: the scheduler is a finished plan, whose rows may refer to what came before.
        """
        span = begin, self.steps if end is None else end
        if span not in self._parts:
            self._parts[span] = self._make_part(*span)
        return self._parts[span]

    def _make_part(self, begin: int, end: int) -> Part:
        if isinstance(self.scheduler, Plan):
            raise InputError(f"{self.scheduler.name} is a finished plan, which cannot begin in the middle")
        if returns_plan(self.scheduler):
            levels = self.grid.levels(self.spec, self.steps).part(begin, end)
            return Part(self.scheduler(levels, **self.options), levels[0], levels[-1])
        method = bind(self.scheduler, **self._arguments()).part(begin, end)
        return Part(compile_or_direct(method), *method.ends)

    def _arguments(self) -> dict[str, Any]:
        return {"steps": self.steps, "spec": self.spec, "grid": self.grid, "options": self.options}


def bind(
    scheduler: Any, *, steps: int, spec: Spec, grid: Grid | None = None, options: Mapping[str, Any] | None = None
) -> Method:
    """The method that a scheduler becomes for one model and number of steps.

    Args:
        scheduler: a function in one of the two conventions, a diffusers-style class or instance.
        steps: number of steps; NFE can be a multiple of it.
        spec: how the model was trained.
        grid: defaults to the model's own spacing.
        options: the scheduler's keyword arguments.

    Raises:
        InputError: unusable steps, grid or options.
    """
    grid, options = grid or Grid(), dict(options or {})
    if not callable(scheduler) and hasattr(scheduler, "set_timesteps"):
        grids.check_steps(spec.schedule, steps)
        own_grid = grid.name == "auto" and not grid.explicit
        with refusals(type(scheduler).__name__, steps):
            visit = {} if own_grid else visiting(scheduler, grid.levels(spec, steps), grid.name)
            return ClassMethod(scheduler, spec.schedule, steps, visit, step_options=options)
    if isinstance(scheduler, type):
        grids.check_steps(spec.schedule, steps)
        has_words = spelling(Accepted.by(scheduler), spec.schedule, grid.name) is not None
        has_levels = grid.name == "auto" and not grid.is_left_open(spec)
        own_words = has_words and not grid.explicit and grid.at_defaults and not has_levels
        levels = None if own_words else grid.levels(spec, steps)
        return build_class(scheduler, spec, steps, options, grid.name, levels)
    found = registration(scheduler)
    if found and grid.is_left_open(spec):
        grid = _customary(found.traits, spec)
    levels = grid.levels(spec, steps)
    name = found.name if found else scheduler.__name__
    if found and found.traits.get("discrete"):
        levels = levels.on_training_timesteps()
    function: Callable[..., Any] = scheduler
    if in_k_diffusion_convention(function):
        function = from_k_diffusion(function)
    return FunctionMethod(function, levels, spec, options, name)


def build_sampler(
    scheduler: Any, *, steps: int, spec: Spec, grid: Grid | None = None, options: Mapping[str, Any] | None = None
) -> Sampler:
    """The compiled plan, the plan that a scheduler returns by itself, or the method to run directly; see ``bind``."""
    if isinstance(scheduler, Plan):
        return scheduler
    if returns_plan(scheduler):
        return scheduler((grid or Grid()).levels(spec, steps), **(options or {}))
    return compile_or_direct(bind(scheduler, steps=steps, spec=spec, grid=grid, options=options))


def returns_plan(scheduler: Any) -> bool:
    """Whether it is a function ``(levels, *, options…) -> Plan``."""
    return inspect.isfunction(scheduler) and list(inspect.signature(scheduler).parameters)[:1] == ["levels"]


def _customary(traits: Mapping[str, Any], spec: Spec) -> Grid:
    """What ``auto`` is for a scheduler: the levels that diffusers' class of it visits with this checkpoint.

    Traits of a scheduler: ``grid`` is the one that it is made for. ``spacing`` is the default of its class, which holds
    where the checkpoint's config does not say. With ``spare_level`` the class makes uniform grids of one level more and
    never visits the lowest of them.
    """
    if "grid" in traits:
        return Grid(traits["grid"], getattr(grids, traits["grid"]))
    spacing = spec.spacing
    if spacing in UNIFORM and spec.scheduler_config and "timestep_spacing" not in spec.scheduler_config:
        spacing = traits.get("spacing", spacing)
    if traits.get("spare_level") and spacing in ("linspace", "leading"):
        named = Grid(spacing, getattr(grids, spacing))
        return Grid(make=lambda schedule, steps: _with_spare_level(named, spec, steps))
    return Grid() if spacing == spec.spacing else Grid(make=getattr(grids, spacing))


def _with_spare_level(grid: Grid, spec: Spec, steps: int) -> Levels:
    possible = 1 <= steps < spec.schedule.num_train_timesteps
    return grid.levels(spec, steps + 1).without_lowest() if possible else grid.levels(spec, steps)


def _own_spacing(spec: Spec) -> MakeLevels:
    own: MakeLevels | None = getattr(spec, "own_levels", None)
    if own is not None:
        return own
    known: dict[str, MakeLevels] = {
        "linspace": grids.linspace,
        "leading": grids.leading,
        "trailing": grids.trailing,
        "karras": grids.karras,
        "exponential": grids.exponential,
        "flow": grids.flow,
    }
    if spec.spacing not in known:
        raise InputError(
            f"the model's scheduler config asks for timestep_spacing={spec.spacing}; choose one of {', '.join(known)}"
        )
    return known[spec.spacing]


def _function(make: MakeLevels | None) -> Any:
    return make.func if isinstance(make, functools.partial) else make
