"""A scheduler bound to a kind of model and a number of steps, and how a class runs with the tables that it ships."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import torch

from diffexp.certify.cases import Case
from diffexp.components.schedulers.foreign.diffusers_levels import level_of_tables
from diffexp.components.schedulers.foreign.diffusers_method import ClassMethod
from diffexp.plan.compile import Sampler, compile_or_direct, run_directly
from diffexp.plan.levels import CLEAN, Level, Levels
from diffexp.plan.method import FunctionMethod, Method
from diffexp.plan.moments import Run
from diffexp.plan.table import Plan

T = TypeVar("T")


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
        return replace(
            self, run=partial(run_directly, replace(self.method, tables=torch.float64, level_of=level_of_tables))
        )

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
    levels = method.grid if isinstance(method, FunctionMethod) else None
    code = method
    if isinstance(method, ClassMethod):
        code = replace(method, tables=torch.float32, level_of=level_of_tables)
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
