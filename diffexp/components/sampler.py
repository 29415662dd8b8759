"""Binding: a scheduler (function, k-diffusion-style function, class, plan), a grid and a model become one method."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from diffexp.catalog.register import registration
from diffexp.components import grids
from diffexp.components.grids.choice import Grid, default_grid
from diffexp.components.schedulers.foreign.diffusers_config import Accepted, spelling
from diffexp.components.schedulers.foreign.diffusers_levels import set_timesteps_arguments
from diffexp.components.schedulers.foreign.diffusers_method import ClassMethod, build_class, refusals
from diffexp.components.schedulers.foreign.k_diffusion import from_k_diffusion, in_k_diffusion_convention
from diffexp.errors import InputError
from diffexp.plan.compile import Sampler, compile_or_direct
from diffexp.plan.levels import Level
from diffexp.plan.method import FunctionMethod, Method
from diffexp.plan.table import Plan
from diffexp.plan.training import Training


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
    training: Training
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
            levels = self.grid.levels(self.training, self.steps).part(begin, end)
            return Part(self.scheduler(levels, **self.options), levels[0], levels[-1])
        method = bind(self.scheduler, **self._arguments()).part(begin, end)
        return Part(compile_or_direct(method), *method.ends)

    def _arguments(self) -> dict[str, Any]:
        return {"steps": self.steps, "training": self.training, "grid": self.grid, "options": self.options}


def bind(
    scheduler: Any,
    *,
    steps: int,
    training: Training,
    grid: Grid | None = None,
    options: Mapping[str, Any] | None = None,
) -> Method:
    """The method that a scheduler becomes for one model and number of steps.

    Args:
        scheduler: a function in one of the two conventions, a diffusers-style class or instance.
        steps: number of steps; NFE can be a multiple of it.
        training: how the model was trained.
        grid: defaults to the model's own spacing.
        options: the scheduler's keyword arguments.

    Raises:
        InputError: unusable steps, grid or options.
    """
    grid, options = grid or Grid(), dict(options or {})
    if not callable(scheduler) and hasattr(scheduler, "set_timesteps"):
        grids.check_steps(training.schedule, steps)
        own_grid = grid.name == "auto" and not grid.explicit
        with refusals(type(scheduler).__name__, steps):
            visit = {} if own_grid else set_timesteps_arguments(scheduler, grid.levels(training, steps), grid.name)
            return ClassMethod(scheduler, training.schedule, steps, visit, step_options=options)
    if isinstance(scheduler, type):
        grids.check_steps(training.schedule, steps)
        has_words = spelling(Accepted.by(scheduler), training.schedule, grid.name) is not None
        has_levels = grid.name == "auto" and not grid.is_left_open(training)
        own_words = has_words and not grid.explicit and grid.at_defaults and not has_levels
        levels = None if own_words else grid.levels(training, steps)
        return build_class(scheduler, training, steps, options, grid.name, levels)
    found = registration(scheduler)
    if found and grid.is_left_open(training):
        grid = default_grid(found.traits, training)
    levels = grid.levels(training, steps)
    name = found.name if found else scheduler.__name__
    if found and found.traits.get("discrete"):
        levels = levels.on_training_timesteps()
    function: Callable[..., Any] = scheduler
    if in_k_diffusion_convention(function):
        function = from_k_diffusion(function)
    return FunctionMethod(function, levels, training, options, name)


def build_sampler(
    scheduler: Any,
    *,
    steps: int,
    training: Training,
    grid: Grid | None = None,
    options: Mapping[str, Any] | None = None,
) -> Sampler:
    """The compiled plan, the plan that a scheduler returns by itself, or the method to run directly; see ``bind``."""
    if isinstance(scheduler, Plan):
        return scheduler
    if returns_plan(scheduler):
        return scheduler((grid or Grid()).levels(training, steps), **(options or {}))
    return compile_or_direct(bind(scheduler, steps=steps, training=training, grid=grid, options=options))


def returns_plan(scheduler: Any) -> bool:
    """Whether it is a function ``(levels, *, options…) -> Plan``."""
    return inspect.isfunction(scheduler) and list(inspect.signature(scheduler).parameters)[:1] == ["levels"]


def within_budget(recipe: Recipe, max_nfe: int | None) -> Recipe:
    """The recipe with as many steps, up to its own, as ``max_nfe`` evaluations allow; None allows all.

    A method of two evaluations a step gets half the steps of one that takes one.

    Raises:
        InputError: not even one step fits, or the levels are given one by one and are too many.
    """
    if max_nfe is None:
        return recipe
    if recipe.grid.explicit:
        if (nfe := recipe.sampler().nfe) > max_nfe:
            raise InputError(f"max_nfe={max_nfe}: the levels of grid.timesteps or grid.sigmas take {nfe}")
        return recipe
    most = min(recipe.steps, max_nfe)
    steps = most
    while (nfe := replace(recipe, steps=steps).sampler().nfe) > max_nfe:
        if steps == 1:
            raise InputError(f"max_nfe={max_nfe}: one step takes {nfe}")
        steps = max(1, min(steps - 1, steps * max_nfe // nfe))
    while steps < most and replace(recipe, steps=steps + 1).sampler().nfe <= max_nfe:
        steps += 1
    return replace(recipe, steps=steps)
