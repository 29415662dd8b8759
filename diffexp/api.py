"""The Python interface: ``diffexp.compile``."""

from collections.abc import Sequence
from typing import Any

from diffexp.discovery import discover
from diffexp.errors import InputError
from diffexp.models.base import Runtime
from diffexp.plan import Direct, Grid, NotLinear, Plan, Spec, TrainingSpec, build_sampler
from diffexp.plan.bind import MakeLevels
from diffexp.schedules import VPSchedule


def compile(
    scheduler: Any,
    *,
    steps: int,
    model: Spec | str | None = None,
    grid: str | MakeLevels | Grid = "auto",
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    **options: Any,
) -> Plan:
    """A scheduler as a table of numbers.

    Args:
        scheduler: the name of an option ("ddim"), a function, a diffusers-style class or instance.
        steps: number of solver steps.
        model: a model, the name of one, or a ``TrainingSpec``; by default DDPM's training (linear betas, epsilon).
        grid: the name of an option, a grid function, or a ``Grid``; ``auto`` is the model's own spacing.
        timesteps, sigmas: visit exactly these instead (they decide the number of steps).
        **options: the scheduler's own.

    Raises:
        InputError: an unknown name or option, or steps out of range.
        NotLinear: the scheduler is no table.

    Example:
        >>> import diffexp
        >>> diffexp.compile("ddim", steps=10).nfe
        10
    """
    catalog = discover()
    spec = _spec(model)
    if isinstance(scheduler, str):
        bound = catalog.build("scheduler", {"name": scheduler, **options})
        scheduler, options = bound.func, dict(bound.keywords)
    if isinstance(grid, str):
        make = None if grid == "auto" else catalog.build("grid", {"name": grid})
        grid = Grid(grid, make, timesteps, sigmas)
    elif not isinstance(grid, Grid):
        grid = Grid(getattr(grid, "__name__", "given"), grid, timesteps, sigmas)
    sampler = build_sampler(scheduler, steps=grid.steps(steps), spec=spec, grid=grid, options=options)
    if isinstance(sampler, Direct):
        raise NotLinear(f"{sampler.method.name}: {sampler.reason}")
    return sampler


def _spec(model: Spec | str | None) -> Spec:
    if model is None:
        return TrainingSpec(VPSchedule.from_betas())
    if isinstance(model, str):
        return discover().build("model", {"name": model})(Runtime())
    if not hasattr(model, "schedule"):
        raise InputError(f"model={model!r} tells no schedule; give a model, its name, or a TrainingSpec")
    return model
