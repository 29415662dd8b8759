"""Binding: a scheduler (function, k-diffusion-style function, class, plan), a grid and a model become one sampler."""

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from diffexp.catalog.register import registration
from diffexp.catalog.signatures import MODEL, PLAN
from diffexp.components import grids
from diffexp.components.grids.choice import Grid, default_grid
from diffexp.components.models.base import Model
from diffexp.components.plan_cache import cached_or_compiled
from diffexp.components.schedulers.foreign.diffusers_auto import ignored_by_class, ignored_entries, visits
from diffexp.components.schedulers.foreign.diffusers_build import build_class, refusals
from diffexp.components.schedulers.foreign.diffusers_config import Accepted, spelling
from diffexp.components.schedulers.foreign.diffusers_levels import pipeline_keywords, set_timesteps_arguments
from diffexp.components.schedulers.foreign.diffusers_method import ClassMethod
from diffexp.components.schedulers.foreign.k_diffusion import (
    from_k_diffusion,
    in_k_diffusion_convention,
    is_adaptive,
)
from diffexp.errors import InputError
from diffexp.plan.compile import Direct, Sampler, compile_method
from diffexp.plan.levels import Level, Levels
from diffexp.plan.method import FunctionMethod, Method, drives_object
from diffexp.plan.schedules import FlowSchedule
from diffexp.plan.stepping import visiting
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A sampler for some consecutive steps."""

    sampler: Sampler
    start: Level
    """The level of its start sample, ``x = alpha * x0 + sigma * eps``."""
    end: Level
    """The level of its output; the clean end for the last steps."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """The ingredients of a sampler, from which samplers of other or fewer steps can be built as well."""

    scheduler: Any
    steps: int
    training: Training
    grid: Grid = field(default_factory=Grid)
    options: Mapping[str, Any] = field(default_factory=dict)
    model: Model | None = None
    """For schedulers that declare a parameter of this name; None where only the training is known."""
    _parts: dict[tuple[int, int], Part] = field(default_factory=dict, init=False, repr=False)

    @functools.cached_property
    def sampler(self) -> Sampler:
        """The sampler for all steps, built on first use; see ``build_sampler``."""
        return build_sampler(self.scheduler, **self._with_model())

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """The config of the class of diffusers that makes the levels of ``grid=auto``; empty where none does."""
        if not self.grid.is_auto:
            return {}
        if isinstance(self.scheduler, type) or hasattr(self.scheduler, "set_timesteps"):
            method = bind(self.scheduler, **self._arguments())
            return dict(getattr(method.scheduler, "config", {})) if isinstance(method, ClassMethod) else {}
        found = visits(_traits(self.scheduler).get("diffusers", ()), self.training, self.steps)
        return dict(found[1].scheduler(self.steps).config) if found else {}

    def warn_of_ignored_config(self) -> None:
        """Log the entries of the checkpoint's scheduler config that ask for something and have no effect."""
        scheduler, training = self.scheduler, self.training
        if isinstance(scheduler, type):
            ignored = ignored_by_class(scheduler, training, self.grid.is_auto)
        elif isinstance(scheduler, Plan) or hasattr(scheduler, "set_timesteps"):
            return
        else:
            names = _traits(scheduler).get("diffusers", ())
            ignored = ignored_entries(names, training, self.steps, self.grid.is_auto)
        if shown := ", ".join(f"{key}={value}" for key, value in ignored.items() if key not in self.options):
            found = registration(scheduler)
            name = found.name if found else scheduler.__name__
            log.warning("%s does not use %s of the checkpoint's scheduler config", name, shown)

    def part(self, begin: int, end: int | None = None) -> Part:
        """The sampler for the steps ``begin`` up to but without ``end``, on the same levels as the whole.

        A multistep method begins it without a history, with its lower orders, as at the start of a whole run.

        Raises:
            InputError: the scheduler is a finished plan, whose rows may refer to earlier ones.
        """
        span = begin, self.steps if end is None else end
        if span not in self._parts:
            self._parts[span] = self._make_part(*span)
        return self._parts[span]

    def within(
        self, most: int | None, cost: Callable[[Sampler], int] = lambda sampler: sampler.nfe, key: str = "max_nfe"
    ) -> "Recipe":
        """The recipe with as many steps, up to its own, as a budget allows.

        A method of two evaluations per step gets half the steps of one that needs one.

        Args:
            most: the budget; None allows all.
            cost: what of a sampler it limits, at least 1 per step.
            key: of the budget, for messages.

        Raises:
            InputError: not even one step fits, the levels are given one by one and are too many, or the method chooses
            its own number of evaluations.
        """
        if most is None:
            return self
        if isinstance(self.sampler, Direct) and getattr(self.sampler.method, "adaptive", False):
            raise InputError(f"{key}={most}: {self.sampler.method.name} chooses its own number of evaluations")
        if self.grid.explicit:
            if (spent := cost(self.sampler)) > most:
                raise InputError(f"{key}={most}: the levels of grid.timesteps or grid.sigmas take {spent}")
            return self
        shortened = functools.cache(lambda steps: self if steps == self.steps else replace(self, steps=steps))
        steps = longest = min(self.steps, most)
        while (spent := cost(shortened(steps).sampler)) > most:
            if steps == 1:
                raise InputError(f"{key}={most}: one step takes {spent}")
            steps = max(1, min(steps - 1, steps * most // spent))
        while steps < longest and cost(shortened(steps + 1).sampler) <= most:
            steps += 1
        return shortened(steps)

    def _make_part(self, begin: int, end: int) -> Part:
        if isinstance(self.scheduler, Plan) or _traits(self.scheduler).get("finished"):
            name = self.scheduler.name if isinstance(self.scheduler, Plan) else self.scheduler.__name__
            raise InputError(f"{name} is a finished plan, which cannot begin in the middle")
        if returns_plan(self.scheduler):
            levels = _levels(self.scheduler, self.steps, self.training, self.grid).part(begin, end)
            return Part(made_plan(self.scheduler, levels, self.options, self.model), levels[0], levels[-1])
        method = bind(self.scheduler, **self._arguments()).part(begin, end)
        return Part(cached_or_compiled(method), *method.ends)

    def _arguments(self) -> dict[str, Any]:
        return {"steps": self.steps, "training": self.training, "grid": self.grid, "options": self.options}

    def _with_model(self) -> dict[str, Any]:
        return {**self._arguments(), "model": self.model}


def build_sampler(
    scheduler: Any,
    *,
    steps: int,
    training: Training,
    grid: Grid | None = None,
    options: Mapping[str, Any] | None = None,
    model: Model | None = None,
) -> Sampler:
    """The compiled plan, the plan that a scheduler returns by itself, or the method to run directly; see ``bind``."""
    if isinstance(scheduler, Plan):
        return scheduler
    if returns_plan(scheduler):
        return made_plan(scheduler, _levels(scheduler, steps, training, grid or Grid()), options or {}, model)
    return cached_or_compiled(bind(scheduler, steps=steps, training=training, grid=grid, options=options))


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
        grid: the timestep schedule; defaults to the model's own.
        options: the scheduler's keyword arguments.

    Raises:
        InputError: unusable steps, grid or options.
    """
    grid, options = grid or Grid(), dict(options or {})
    if isinstance(scheduler, type):
        grids.check_steps(training.schedule, steps)
        return build_class(
            scheduler, training, steps, options, grid.name, _levels_of_class(scheduler, steps, training, grid)
        )
    if hasattr(scheduler, "set_timesteps"):
        return _bind_object(scheduler, steps, training, grid, options)
    return _bind_function(scheduler, steps, training, grid, options)


def _levels_of_class(cls: type, steps: int, training: Training, grid: Grid) -> Levels | None:
    """The levels that a class gets as a list; None where it makes them itself, by default or by options of its own."""
    if grid.is_auto:
        return None
    has_option = grid.is_plain and spelling(Accepted.by(cls), training.schedule, grid.name) is not None
    return None if has_option else grid.levels(training, steps)


def _bind_object(scheduler: Any, steps: int, training: Training, grid: Grid, options: dict[str, Any]) -> ClassMethod:
    grids.check_steps(training.schedule, steps)
    with refusals(type(scheduler).__name__, steps):
        if grid.is_auto:
            visit, given = pipeline_keywords(scheduler, training, steps)
        else:
            visit, given = set_timesteps_arguments(scheduler, grid.levels(training, steps), grid.name), {}
        return ClassMethod(scheduler, training.schedule, steps, visit, given, options)


def _bind_function(
    function: Callable[..., Any], steps: int, training: Training, grid: Grid, options: dict[str, Any]
) -> FunctionMethod:
    found = registration(function)
    levels = _levels(function, steps, training, grid)
    if _traits(function).get("discrete"):
        levels = levels.on_training_timesteps()
    name = found.name if found else function.__name__
    adaptive = is_adaptive(function)
    if in_k_diffusion_convention(function):
        function = from_k_diffusion(function)
    return FunctionMethod(function, levels, training, options, name, adaptive)


def _levels(function: Any, steps: int, training: Training, grid: Grid) -> Levels:
    """The levels that a function gets."""
    chosen = default_grid(_traits(function), training) if grid.is_auto else grid
    return chosen.levels(training, steps)


def _traits(function: Any) -> Mapping[str, Any]:
    """Keywords of a function's decorator."""
    found = registration(function)
    return found.traits if found else {}


def returns_plan(scheduler: Any) -> bool:
    """Whether a scheduler is a function ``(levels, *, options…) -> Plan``, or ``(levels, model, *, options…)``."""
    return inspect.isfunction(scheduler) and tuple(inspect.signature(scheduler).parameters)[:1] == PLAN


def made_plan(scheduler: Any, levels: Levels, options: Mapping[str, Any], model: Model | None = None) -> Plan:
    """The plan that such a function returns."""
    injected = list(inspect.signature(scheduler).parameters)[1:2] == [MODEL]
    return scheduler(levels, *([model] if injected else []), **options)


def compile_recipe(
    recipe: Recipe,
    steps: int,
    *,
    begin: int = 0,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    mu: float | None = None,
) -> Plan:
    """The plan of a recipe for what a pipeline requests; with the recipe bound, ``compile`` of a PlanScheduler.

    Sigmas and mu mean what the scheduler's class in diffusers makes of them, and matter where the recipe leaves its
    timestep schedule to the model.

    Raises:
        InputError: the scheduler is not a table, or its class does not use them.
    """
    grid, training = recipe.grid, recipe.training
    if timesteps is not None:
        grid = Grid(timesteps=timesteps)
    elif grid.is_auto and (sigmas is not None or mu is not None):
        if isinstance(training.schedule, FlowSchedule) and training.scheduler_config:
            training = replace(training, set_timesteps=lambda *_: {"sigmas": sigmas, "mu": mu})
        elif sigmas is not None:
            source = getattr(replace(recipe, steps=steps).sampler, "source", None)
            if drives_object(source) and "sigmas" in inspect.signature(source.scheduler.set_timesteps).parameters:
                return compile_method(visiting(source, None, {"sigmas": list(sigmas)}))
            grid = Grid(sigmas=sigmas)
    found = replace(recipe, steps=steps, grid=grid, training=training)
    sampler = found.part(begin).sampler if begin else found.sampler
    if not isinstance(sampler, Plan):
        raise InputError(f"{sampler.method.name} runs directly ({sampler.reason}), and a pipeline needs a plan")
    return sampler
