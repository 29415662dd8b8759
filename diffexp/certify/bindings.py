"""The forms of a scheduler: code that makes steps (a function or a class of diffusers), or a finished table."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from diffexp.catalog.quirks import quirks_of
from diffexp.certify.bound import Bound
from diffexp.certify.cases import Case
from diffexp.certify.runs import ONE
from diffexp.components.schedulers.foreign.diffusers_levels import level_of_tables
from diffexp.components.schedulers.foreign.diffusers_method import ClassMethod
from diffexp.plan.compile import Sampler, compile_or_direct, run_directly
from diffexp.plan.execute import Network, execute
from diffexp.plan.levels import CLEAN, Level, Levels
from diffexp.plan.method import FunctionMethod, Method, Noise
from diffexp.plan.moments import Response
from diffexp.plan.table import Plan

NEXT = 1.001
"""Distance to the next whole timestep, from one that is known to float32."""
LEFT_OVER = 0.02
"""Standard deviation of the noise that a class may leave in its output."""


@dataclass(frozen=True, eq=False)
class OfPlan(Bound):
    """A finished table."""

    plan: Plan
    levels: Levels

    @property
    def start_std(self) -> float:
        return self.plan.start_std

    @property
    def end(self) -> Level:
        return self.levels[-1]

    def _run(self, network: Network, start: Tensor, noise: Noise) -> Tensor:
        return execute(self.plan, network, start, noise)

    def first_level(self) -> tuple[Level, float]:
        return self.levels[0], 1.0

    def _compile(self) -> Sampler:
        return self.plan


@dataclass(frozen=True, eq=False)
class OfCode(Bound):
    """Code that can be run as it is, and in part."""

    code: Method
    """What the runs of a certificate execute."""

    @property
    def start_std(self) -> float:
        return self.code.start_std

    def _run(self, network: Network, start: Tensor, noise: Noise) -> Tensor:
        return run_directly(self.code, network, start, noise)

    def part(self, begin: int, end: int) -> "OfCode":
        """Bind to the steps from ``begin`` up to but without ``end`` only."""
        return replace(self, code=self.code.part(begin, end))

    def _compile(self) -> Sampler:
        return compile_or_direct(self.code)


@dataclass(frozen=True, eq=False)
class OfFunction(OfCode):
    """A function on given levels."""

    code: FunctionMethod

    @property
    def end(self) -> Level:
        return self.code.ends[1]

    def first_level(self) -> tuple[Level, float]:
        return self.code.ends[0], 1.0


@dataclass(frozen=True, eq=False)
class OfClass(OfCode):
    """A class of diffusers, which makes its own levels and keeps its tables in float32."""

    code: ClassMethod
    """The class with its tables as they are or in float64, at the levels that it computes with."""
    method: ClassMethod
    """The class as in an experiment."""

    output_tolerance: ClassVar[float] = 2e-3
    left_over: ClassVar[float] = 5 * LEFT_OVER

    @classmethod
    def as_shipped(cls, case: Case, method: ClassMethod) -> "OfClass":
        return cls(case, replace(method, tables=torch.float32, level_of=level_of_tables), method)

    @cached_property
    def in_float64(self) -> "OfClass":
        return replace(self, code=replace(self.code, tables=torch.float64))

    @property
    def end(self) -> Level:
        """The clean end, since no class states another one; see ``end_of``."""
        return CLEAN

    def end_of(self, response: Response) -> Level:
        """Return where the output belongs: a class may stop at a low level, which its output shows."""
        made = response.output.moments
        mean, std = made.mean[0].item(), math.sqrt(made.variances[0].item())
        on_path = abs(mean - 1) < 1e-5 or abs(math.hypot(mean, std) - 1) < 1e-5 or abs(mean + std - 1) < 1e-5
        return Level(0.0, mean, std) if 1e-5 < std <= LEFT_OVER and on_path else self.end

    def taken_for(self, level: Level) -> Level:
        """As for any scheduler, but a class may round the timestep for the network, up or down."""
        return level if self.rounds(level) else super().taken_for(level)

    @property
    def has_tables(self) -> bool:
        """Whether the class has a table of the levels that it computes with."""
        scheduler = self.code.prepared(torch.float32)
        return getattr(scheduler, "sigmas", None) is not None or bool(quirks_of(type(scheduler)).noise_and_signal)

    def rounds(self, level: Level) -> bool:
        """Whether a level's timestep is a whole number next to the one of its noise."""
        meant = self.case.training.schedule.at_ratio(level.ratio).timestep
        return level.timestep.is_integer() and abs(level.timestep - meant) < NEXT

    def defect_tolerance(self, response: Response) -> float:
        """Return what float32 tables allow, where the noise is small against the signal."""
        return 1e-5 + 1e-6 / min(level.sigma for level, _ in response.seen)

    def run_as_sampled(self, network: Network, start: Tensor, noise: Noise) -> Tensor:
        return run_directly(self.method, network, start, noise)

    def first_level(self) -> tuple[Level, float]:
        def network(u: Tensor, level: Level) -> Tensor:
            raise _FirstEvaluation(level, u.flatten()[0].item())

        zeros = torch.zeros(1, *ONE, dtype=torch.float64)
        try:
            self.run(network, torch.ones_like(zeros), zeros.clone)
        except _FirstEvaluation as first:
            return first.level, first.scale
        raise AssertionError("the network was never evaluated")

    def part(self, begin: int, end: int) -> "OfClass":
        return replace(self, code=self.code.part(begin, end), method=self.method.part(begin, end))

    @property
    def can_begin_in_the_middle(self) -> bool:
        """Whether ``part`` works: an object that counts its steps needs ``set_begin_index``."""
        scheduler = self.method.scheduler
        return hasattr(scheduler, "set_begin_index") or not hasattr(scheduler, "step_index")

    def _compile(self) -> Sampler:
        return compile_or_direct(self.method)


class _FirstEvaluation(Exception):
    """Ends a run at its first evaluation."""

    def __init__(self, level: Level, scale: float) -> None:
        super().__init__()
        self.level, self.scale = level, scale
