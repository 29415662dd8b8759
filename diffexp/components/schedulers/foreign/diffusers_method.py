"""diffusers-style scheduler classes (``set_timesteps``, ``scale_model_input``, ``step``) as methods."""

import copy
import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from diffexp.catalog.quirks import quirks_of
from diffexp.components.schedulers.foreign.diffusers_levels import (
    level_of_timestep,
)
from diffexp.errors import InputError
from diffexp.plan.levels import CLEAN, Level, Schedule
from diffexp.plan.method import Evaluate, Noise

log = logging.getLogger(__name__)


@dataclass
class ClassMethod:
    """A scheduler object bound to a number of steps, or to exactly these timesteps or sigmas."""

    scheduler: Any
    schedule: Schedule
    steps: int
    visit: Mapping[str, Any] = field(default_factory=dict)
    """``timesteps=`` or ``sigmas=`` for ``set_timesteps`` instead of the number of steps."""
    set_options: Mapping[str, Any] = field(default_factory=dict)
    """Further keywords of ``set_timesteps``."""
    step_options: Mapping[str, Any] = field(default_factory=dict)
    """Further keywords of ``step``."""
    span: tuple[int, int | None] = (0, None)
    """Which of its timesteps are visited."""
    tables: torch.dtype | None = None
    """Precision of the scheduler's tables and of the arithmetic on them; None is that of the sample."""
    level_of: Callable[[Schedule, Any, float], Level] = level_of_timestep
    """The level of an evaluation, by the model's schedule, the scheduler and the timestep."""
    _templates: dict[torch.dtype | None, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        prepared = self.prepared(torch.float32)
        self.name = type(self.scheduler).__name__
        self.nfe = len(prepared.timesteps[slice(*self.span)])
        self.start_std = float(getattr(prepared, "init_noise_sigma", 1.0))

    def __call__(self, evaluate: Evaluate, x: Tensor, noise: Noise) -> Tensor:
        return self.drive(self.prepared(self.tables or x.dtype), evaluate, x)

    def drive(self, scheduler: Any, evaluate: Evaluate, x: Tensor) -> Tensor:
        """The loop of a pipeline, with a scheduler whose timesteps are set."""
        if self.span[0]:
            begin_at(scheduler, self.span[0])
        step = with_pipeline_steps(scheduler).step
        for t in scheduler.timesteps[slice(*self.span)]:
            level = self._network_level(self.level_of(self.schedule, scheduler, float(t)), float(t))
            x = _sample_of(step(evaluate(x, scaled_input(scheduler, x, t), level), t, x, **self.step_options))
        return x

    def prepared(self, dtype: torch.dtype) -> Any:
        """A fresh copy of the scheduler with its timesteps set and its tables in ``dtype``.

        Raises:
            InputError: the class needs a package that is missing.
        """
        if dtype not in self._templates:
            if None not in self._templates:  # some classes take long to set their timesteps
                self._templates[None] = copy.deepcopy(self.scheduler)
                self.set_timesteps(self._templates[None])
            scheduler = copy.deepcopy(self._templates[None])
            _cast_tables(scheduler, dtype)
            _cache_slow_method(scheduler)
            self._templates[dtype] = scheduler
        return copy.deepcopy(self._templates[dtype])

    def set_timesteps(self, scheduler: Any) -> None:
        """Set the timesteps of a scheduler, as the class sets them."""
        steps = () if self.visit else (self.steps,)  # by position: a class may call it what it likes
        scheduler.set_timesteps(*steps, **self.visit, **self.set_options)

    def stepping(self, *, prepared: bool = True) -> Any:
        """A fresh object to step, with its timesteps set if ``prepared``; its tables are as the class made them."""
        return with_pipeline_steps(self.prepared(torch.float32) if prepared else copy.deepcopy(self.scheduler))

    def visiting(self, num_inference_steps: int | None, **given: Any) -> "ClassMethod":
        """The method for other arguments of ``set_timesteps``; raises what the class raises for them."""
        if num_inference_steps is None:
            return replace(self, visit=given, _templates={})
        options = {**self.set_options, **given}
        return replace(self, steps=num_inference_steps, set_options=options, _templates={})

    def in_own_precision(self) -> "ClassMethod":
        """The method with the tables of the class as they are."""
        return replace(self, tables=torch.float32)

    @property
    def levels(self) -> Sequence[Level]:
        """Level of every evaluation, by its timestep."""
        return [self.level(t) for t in self.prepared(torch.float32).timesteps[slice(*self.span)].tolist()]

    @property
    def ends(self) -> tuple[Level, Level]:
        begin, end = self.span
        return self._level_of_sample(begin), CLEAN if end is None else self._level_of_sample(end)

    def part(self, begin: int, end: int) -> "ClassMethod":
        order = getattr(self.scheduler, "order", 1)
        return replace(self, span=(begin * order, end * order if end < self.steps else None))

    def level(self, timestep: float) -> Level:
        """The level that the network takes its input for, of which it knows only the timestep."""
        return self._network_level(level_of_timestep(self.schedule, self.scheduler, timestep), timestep)

    def _level_of_sample(self, index: int) -> Level:
        """The level of the sample, as the class scales it, before the timestep of that index."""
        scheduler = self.prepared(torch.float32)
        begin_at(scheduler, index)
        t = scheduler.timesteps[index]
        return self.level(float(t)).scaled(1 / float(scaled_input(scheduler, torch.ones(1), t)))

    def _network_level(self, level: Level, timestep: float) -> Level:
        """A level in the scale of the network's input, under the timestep that the network gets."""
        return replace(level.scaled(self.schedule.input_scale(level)), timestep=timestep)


def scaled_input(scheduler: Any, x: Tensor, t: Any) -> Tensor:
    """The network's input for the sample ``x``, in its shape."""
    return scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x


def begin_at(scheduler: Any, index: int) -> None:
    """Let a scheduler that counts its steps begin at the timestep of that index."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)


def with_pipeline_steps(scheduler: Any) -> Any:
    """The scheduler, with ``step(output, t, x, **options)`` where its own needs more from its pipeline."""
    taken = inspect.signature(scheduler.step).parameters
    return _CogVideoXSteps(scheduler) if "old_pred_original_sample" in taken else scheduler


class _CogVideoXSteps:
    """CogVideoXDPMScheduler, whose pipeline has to hand it the last x0 estimate and timestep."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.last_x0: Tensor | None = None
        self.last_t: Any = None

    def __getattr__(self, name: str) -> Any:
        if name == "scheduler":  # not there yet, in a copy that is being made
            raise AttributeError(name)
        return getattr(self.scheduler, name)

    def step(self, output: Tensor, t: Any, x: Tensor, **options: Any) -> tuple[Tensor]:
        """The next sample."""
        x, self.last_x0 = self.scheduler.step(output, self.last_x0, t, self.last_t, x, **options)
        self.last_t = t
        return (x,)


def _sample_of(stepped: Any) -> Tensor:
    """The sample in what ``step`` returned: diffusers' output object, a tuple, or the sample itself."""
    if hasattr(stepped, "prev_sample"):
        return stepped.prev_sample
    return stepped[0] if isinstance(stepped, tuple) else stepped


def _cache_slow_method(scheduler: Any) -> None:
    """Cache LMSDiscreteScheduler's numerical quadrature; copies of ``scheduler`` share the cache.

    Raises:
        InputError: the class needs a package that is missing; diffusers then leaves its names undefined.
    """
    quirks = quirks_of(type(scheduler))
    if quirks.requires and find_spec(quirks.requires) is None:
        raise InputError(f"{type(scheduler).__name__} needs {quirks.requires}: pip install {quirks.requires}")
    if quirks.cached:
        setattr(scheduler, quirks.cached, functools.cache(getattr(scheduler, quirks.cached)))


def _cast_tables(scheduler: Any, dtype: torch.dtype) -> None:
    # The tables keep their float32 values; only the arithmetic on them gains the precision. Timesteps are labels.
    if dtype == torch.float64:
        for name, value in vars(scheduler).items():
            if isinstance(value, Tensor) and value.dtype == torch.float32 and name != "timesteps":
                setattr(scheduler, name, value.double())
