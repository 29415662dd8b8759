"""A scheduler bound to a kind of model and a number of steps, and how a class runs with the tables that it ships."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffexp.certify.cases import Case
from diffexp.components.schedulers.foreign.diffusers_method import ClassMethod, begin_at, integrate_once, stepper
from diffexp.plan.compile import Sampler, compile_or_direct, run_directly
from diffexp.plan.levels import CLEAN, Level, Levels, Schedule
from diffexp.plan.method import Evaluate, FunctionMethod, Method, Noise
from diffexp.plan.moments import Run
from diffexp.plan.table import Plan

T = TypeVar("T")


@dataclass(frozen=True)
class Shipped:
    """Runs a class without giving its tables more precision, and tells where its sample really is.

    The level of an evaluation is the one that the class computes with. What it tells the network is a timestep, which
    several classes round.
    """

    method: ClassMethod
    schedule: Schedule
    _templates: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def start_std(self) -> float:
        return self.method.start_std

    @property
    def nfe(self) -> int:
        return self.method.nfe

    @property
    def timesteps(self) -> Sequence[float]:
        return self.method.timesteps

    @property
    def ends(self) -> tuple[Level, Level]:
        return self.method.ends

    def part(self, begin: int, end: int) -> "Shipped":
        return type(self)(self.method.part(begin, end), self.schedule)

    def prepared(self) -> Any:
        """A fresh copy of the scheduler, its timesteps set."""
        if not self._templates:
            scheduler = copy.deepcopy(self.method.scheduler)
            self.set_timesteps(scheduler)
            integrate_once(scheduler)
            self._templates.append(scheduler)
        return copy.deepcopy(self._templates[0])

    def set_timesteps(self, scheduler: Any) -> None:
        visit: Mapping[str, Any] = self.method.visit or {"num_inference_steps": self.method.steps}
        scheduler.set_timesteps(**visit, **self.method.set_options)

    def __call__(self, evaluate: Evaluate, x: Tensor, noise: Noise) -> Tensor:
        return self.drive(self.prepared(), evaluate, x)

    def drive(self, scheduler: Any, evaluate: Evaluate, x: Tensor) -> Tensor:
        """The loop of a pipeline."""
        step, span = stepper(scheduler, self.method.step_options), self.method.span
        if span[0]:
            begin_at(scheduler, span[0])
        for t in scheduler.timesteps[slice(*span)]:
            u = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = step(evaluate(x, u, self.level(scheduler, float(t))), t, x)
        return x

    def level(self, scheduler: Any, timestep: float) -> Level:
        """Where the sample is by the scheduler's own table."""
        here = _own_level(scheduler, self.schedule)
        if here is None:
            return self.method.level(timestep)
        return replace(here.scaled(self.schedule.input_scale(here)), timestep=timestep)


class Widened(Shipped):
    """The same with tables and arithmetic in float64, as far as their values allow."""

    def prepared(self) -> Any:
        return self.method.prepared(torch.float64)


def _own_level(scheduler: Any, schedule: Schedule) -> Level | None:
    """By the table of sigmas that it computes with; None where it goes by timesteps."""
    index = getattr(scheduler, "step_index", None)
    if index is None:
        index = getattr(scheduler, "begin_index", None) or 0
    table = getattr(scheduler, "sigmas", None)
    if not getattr(scheduler, "state_in_first_order", True) and hasattr(scheduler, "sigmas_interpol"):
        # Of the two classes of DPM2, the second evaluation of a step looks at another place of the table.
        table, index = scheduler.sigmas_interpol, index - ("Ancestral" in type(scheduler).__name__)
    if table is None and type(scheduler).__name__ == "IPNDMScheduler":
        return schedule.at_ratio(float(scheduler.betas[index] / scheduler.alphas[index]))  # sine and cosine
    if table is None or index >= len(table) or not float(table[index]) > 0:
        return None
    return schedule.at_sigma(float(table[index]))


@dataclass(frozen=True)
class Bound:
    """A scheduler bound to a kind of model and a number of steps."""

    run: Run
    """(network, start, noise) to the output, by the scheduler's own code."""
    case: Case
    start_std: float
    levels: Levels | None
    """What it was told to visit; None for a class that made its own grid."""
    method: Method | None
    """None for a function that returns its plan by itself."""
    code: Method | None
    """The same, a class with the tables it ships."""
    plan: Plan | None = None
    _known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What ``make`` gives, computed once: several checks look at the same run."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    @cached_property
    def widened(self) -> "Bound":
        """The same in float64 throughout: another run only for classes, which keep float32 tables."""
        if not isinstance(self.method, ClassMethod):
            return self
        return replace(self, run=partial(run_directly, Widened(self.method, self.case.training.schedule)))

    @property
    def end(self) -> Level:
        """Where the output belongs; of a class, where it says nothing about it, the clean end."""
        return CLEAN if self.levels is None else self.levels[-1]

    def part(self, begin: int, end: int) -> "Bound | None":
        """Bound to the steps from ``begin`` to ``end`` only; None for a plan, which is for all of its steps."""
        if self.method is None:
            return None
        return _bound(self.method.part(begin, end), self.case)

    @cached_property
    def sampler(self) -> Sampler:
        """The table, or the method where it is none."""
        if self.method is None:
            assert self.plan is not None
            return self.plan
        with quiet():
            return compile_or_direct(self.method)


def _bound(method: Method, case: Case) -> Bound:
    levels = method.levels if isinstance(method, FunctionMethod) else None
    code = Shipped(method, case.training.schedule) if isinstance(method, ClassMethod) else method
    return Bound(partial(run_directly, code), case, method.start_std, levels, method, code)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that are meant for runs: a certificate says the same in its own words."""
    loggers = [logging.getLogger(name) for name in ("diffexp", "diffusers")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)
