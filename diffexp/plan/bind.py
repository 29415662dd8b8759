"""Binding: a scheduler (function, k-diffusion-style function, class, plan), a grid and a model become one method."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffexp import grids
from diffexp.errors import InputError
from diffexp.levels import Levels, Schedule
from diffexp.plan.compile import Sampler, compile_or_direct
from diffexp.plan.diffusers_class import SPACING_OPTIONS, ClassMethod, build_class
from diffexp.plan.method import FunctionMethod, Method, Spec, from_k_diffusion
from diffexp.plan.plan import Plan
from diffexp.registry import registration

MakeLevels = Callable[[Schedule, int], Levels]


@dataclass(frozen=True)
class Grid:
    """Which levels to visit: a named grid, or an explicit list that is used as given."""

    name: str = "auto"
    """``auto`` is the model's own spacing."""
    make: MakeLevels | None = None
    """The grid function with its options; None for ``auto``."""
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None

    @property
    def explicit(self) -> bool:
        return self.timesteps is not None or self.sigmas is not None

    def steps(self, asked: int) -> int:
        """The number of steps; an explicit list decides it."""
        if self.timesteps is not None:
            return len(self.timesteps)
        if self.sigmas is not None:
            return len(self.sigmas) - (len(self.sigmas) > 0 and self.sigmas[-1] == 0)
        return asked

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
        return ClassMethod(scheduler, spec.schedule, steps, step_options=options)
    if isinstance(scheduler, type):
        own_words = not grid.explicit and grid.name in SPACING_OPTIONS
        levels = None if own_words else grid.levels(spec, steps)
        grids.check_steps(spec.schedule, steps)
        return build_class(scheduler, spec, steps, options, grid.name, levels)
    levels = grid.levels(spec, steps)
    found = registration(scheduler)
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


def in_k_diffusion_convention(function: Callable[..., Any]) -> bool:
    """Whether the first parameters are ``(model, x, sigmas)``."""
    return list(inspect.signature(function).parameters)[:3] == ["model", "x", "sigmas"]


def returns_plan(scheduler: Any) -> bool:
    """Whether it is a function ``(levels, *, options…) -> Plan``."""
    return inspect.isfunction(scheduler) and list(inspect.signature(scheduler).parameters)[:1] == ["levels"]


def _own_spacing(spec: Spec) -> MakeLevels:
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


def _function(make: MakeLevels) -> Any:
    return make.func if isinstance(make, functools.partial) else make
