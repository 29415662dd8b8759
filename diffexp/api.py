"""The Python interface: ``diffexp.compile``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import isfunction
from typing import Any

from diffexp.catalog.diffusers import PREFIX, TRAINING
from diffexp.catalog.discover import discover
from diffexp.catalog.entry import OptionSet
from diffexp.catalog.quirks import quirks_of
from diffexp.catalog.signatures import WrongSignature, form_of_function, from_object, readable
from diffexp.catalog.types import UNREADABLE, Option, OptionType
from diffexp.components.checkpoints.scheduler_config import read_training
from diffexp.components.grids.choice import Grid, MakeLevels
from diffexp.components.models.base import Model, Runtime
from diffexp.components.sampler import Recipe
from diffexp.components.schedulers.foreign.diffusers_config import Accepted
from diffexp.components.schedulers.foreign.diffusers_levels import REFUSALS
from diffexp.errors import InputError
from diffexp.plan.compile import Direct
from diffexp.plan.levels import Schedule
from diffexp.plan.predictions import Prediction
from diffexp.plan.schedules import FlowSchedule, VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.trace import NotLinear
from diffexp.plan.training import Training


def compile(
    scheduler: Any,
    *,
    steps: int,
    model: Model | Training | str | None = None,
    grid: str | MakeLevels | Grid = "auto",
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    **options: Any,
) -> Plan:
    """A scheduler as a table of numbers.

    Args:
        scheduler: the name of an option ("ddim", "diffusers/unipc"), a function, a diffusers-style class or instance.
        steps: number of solver steps.
        model: a model, the name of one, or a ``Training``; by default DDPM's training (linear betas, epsilon), and
            for a diffusers-style class or instance the one that its own config describes.
        grid: the name of an option, a grid function, or a ``Grid``; ``auto`` is the model's own spacing.
        timesteps, sigmas: visit exactly these instead (they decide the number of steps).
        **options: the scheduler's own.

    Raises:
        InputError: an unknown name or option, a value that an option does not take, or steps out of range.
        NotLinear: the scheduler is no table.

    Example:
        >>> import diffexp
        >>> diffexp.compile("ddim", steps=10).nfe
        10
    """
    if problem := OptionType("int").problem(steps):
        raise InputError(f"steps={steps} {problem}")
    catalog = discover()
    if isinstance(scheduler, str):
        # Without a model there is no training that the options of a class could contradict.
        free = TRAINING if model is None and scheduler.startswith(PREFIX) else ()
        trained = {name: options.pop(name) for name in free if name in options}
        bound = catalog.build("scheduler", {"name": scheduler, **options})
        scheduler, options = bound.func, {**bound.keywords, **trained}
    elif isfunction(scheduler):
        _check_options(scheduler, options)
    elif not (callable(scheduler) or hasattr(scheduler, "set_timesteps") or isinstance(scheduler, Plan)):
        raise InputError(f"{scheduler!r} is no scheduler: give a name, a function, a class or an instance")
    known = _model(model)
    training = own_training(scheduler, options) if known is None else _training(known)
    if isinstance(grid, str):
        make = None if grid == "auto" else catalog.build("grid", {"name": grid})
        grid = Grid(grid, make, timesteps, sigmas)
    elif not isinstance(grid, Grid):
        grid = Grid(getattr(grid, "__name__", "given"), grid, timesteps, sigmas)
    whole = None if isinstance(known, Training) else known
    recipe = Recipe(scheduler, grid.steps(steps), training, grid, options, whole)
    sampler = recipe.sampler
    if isinstance(sampler, Direct):
        raise NotLinear(f"{sampler.method.name}: {sampler.reason}")
    recipe.warn_of_ignored_config()
    return sampler


def _check_options(function: Any, options: Mapping[str, Any]) -> None:
    """Check the options of a function as those of a registered scheduler.

    Raises:
        InputError: the function follows none of the conventions, has no such option, or takes no such value.
    """
    signature = from_object(function)
    try:
        form = form_of_function("scheduler", readable(signature))
    except WrongSignature as error:
        raise InputError(f"{function.__name__}: {error}") from error
    # Functions and tensors as defaults, which no config can hold, are options from Python.
    others = [Option(p.name, OptionType("any"), p.default) for p in signature.parameters if p.default is UNREADABLE]
    OptionSet([*form.options, *others], "scheduler", function.__name__, form.accepts_any_option).check(options)


def own_training(scheduler: Any, options: Mapping[str, Any]) -> Training:
    """The training that the config of a diffusers-style class or instance describes; DDPM's where there is none."""
    ddpm = Training(VPSchedule.from_betas())
    if isinstance(scheduler, type):
        accepted = Accepted.by(scheduler).config
        try:
            scheduler = scheduler(**{name: value for name, value in options.items() if name in accepted})
        except REFUSALS:
            return ddpm  # building it for this training will say what is wrong
    if not hasattr(scheduler, "config"):
        return ddpm
    name = type(scheduler).__name__
    config = {key: value for key, value in scheduler.config.items() if key != "_use_default_values"}
    if quirks_of(type(scheduler)).for_flow:
        schedule = FlowSchedule(config.get("shift", 1.0), config["num_train_timesteps"])
        return Training(schedule, Prediction.FLOW, None, config, "flow")
    try:
        found = read_training({**config, "_class_name": name, "use_dynamic_shifting": False}, name)
    except InputError:
        return replace(ddpm, scheduler_config=config)
    return replace(found, schedule=_with_own_table(found, scheduler), scheduler_config=config)


def _with_own_table(training: Training, scheduler: Any) -> Schedule:
    """Some classes change the table that their betas give (CogVideoX shifts it)."""
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None or not isinstance(training.schedule, VPSchedule):
        return training.schedule
    return replace(training.schedule, alphas_cumprod=tuple(table.double().tolist()))


def _model(model: Model | Training | str | None) -> Model | Training | None:
    return discover().build("model", {"name": model})(Runtime()) if isinstance(model, str) else model


def _training(model: Model | Training) -> Training:
    found = getattr(model, "training", model)
    if not isinstance(found, Training):
        raise InputError(f"model={model!r} has no noise schedule; give a model, its name, or a Training")
    return found
