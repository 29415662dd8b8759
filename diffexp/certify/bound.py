"""A scheduler bound to a kind of model and a number of steps, and its runs on data that is known exactly.

The subclasses in ``bindings`` are what a scheduler may be: a function, a class, or a plan.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from diffexp.certify.cases import Case
from diffexp.certify.data import MIXTURE, Mixture
from diffexp.certify.runs import BATCH, ONE, Data, Walk, distance, quiet, random_points, sample_noise
from diffexp.plan.compile import Sampler
from diffexp.plan.execute import Network
from diffexp.plan.levels import Level, input_level, timestep_belongs
from diffexp.plan.method import Noise
from diffexp.plan.moments import Gaussian, Response, informed, respond
from diffexp.plan.table import Plan

LINEAR_ON = ((1.0, 0.0), (0.0, 0.05), (0.3, 0.5), (1.0, 1.0))
"""Mean and standard deviation of data on which code without a table is tried; if it branches, it differs on some."""


@dataclass(frozen=True, eq=False)
class Bound(ABC):
    """A scheduler bound to a kind of model and a number of steps."""

    case: Case
    trusting: bool = field(default=False, kw_only=True)
    """Whether the network gets the level that the scheduler computes with, whatever timestep it gives."""

    output_tolerance: ClassVar[float] = 1e-6
    """Largest error of an output on point data that counts as rounding."""
    left_over: ClassVar[float] = 0.0
    """How much noise, in the largest of its elements, may be left in the output."""

    @property
    @abstractmethod
    def start_std(self) -> float:
        """Standard deviation of the start sample."""

    @property
    @abstractmethod
    def end(self) -> Level:
        """Level of the output."""

    @cached_property
    def in_float64(self) -> "Bound":
        """The same in float64 throughout; another one only for classes, whose tables are float32."""
        return self

    @abstractmethod
    def _run(self, network: Network, start: Tensor, noise: Noise) -> Tensor: ...

    def run(self, network: Network, start: Tensor, noise: Noise) -> Tensor:
        """Run the scheduler's own code from ``start`` [batch, *shape] with a network that uses its timesteps."""

        def evaluate(u: Tensor, level: Level) -> Tensor:
            with torch._C.DisableTorchFunction():  # modes that watch the scheduler cost time in every operation
                return network(u, self.taken_for(level))

        return self._run(evaluate, start, noise)

    def taken_for(self, level: Level) -> Level:
        """Return the level that a network takes its input for: that of the timestep, if it is not the scheduler's."""
        schedule = self.case.training.schedule
        if self.trusting or timestep_belongs(schedule, level):
            return level
        return input_level(schedule, level.timestep)

    def run_as_sampled(self, network: Network, start: Tensor, noise: Noise) -> Tensor:
        """Run as in an experiment, where the network takes its input for what belongs to the timestep."""
        return self.run(network, start, noise)

    @abstractmethod
    def first_level(self) -> tuple[Level, float]:
        """Return where a run begins, and the factor from its start sample to the network's input."""

    def end_of(self, response: Response) -> Level:
        """Return where the output of a response to ``POINT`` belongs."""
        return self.end

    def defect_tolerance(self, response: Response) -> float:
        """Return the largest defect of a step on point data that counts as rounding."""
        return 1e-9

    @abstractmethod
    def _compile(self) -> Sampler: ...

    @cached_property
    def sampler(self) -> Sampler:
        """The table, or the method if it has none."""
        with quiet():
            return self._compile()

    def start(self, indices: Sequence[int] = range(BATCH)) -> Tensor:
        """Return the start of the samples with these indices, [len(indices), *ONE]."""
        return self.start_std * sample_noise(indices, seed=0)()

    def walk(self, data: Data, *, start: Tensor | None = None, noise: Noise | None = None) -> Walk:
        """Run the code on ``data`` in float64; start and noise are the same in every run unless they are given."""
        noise = noise or sample_noise()
        seen: list[tuple[Level, Tensor]] = []
        draws = 0

        def network(u: Tensor, level: Level) -> Tensor:
            seen.append((level, u.clone()))
            return self.case.training.prediction.output(level, *data.clean_and_noise(u, level))

        def counted() -> Tensor:
            nonlocal draws
            draws += 1
            return noise()

        output = self.run(network, self.start() if start is None else start, counted)
        return Walk(seen, draws, output)

    @cached_property
    def usual_walk(self) -> Walk:
        """The run on the mixture from the usual start."""
        return self.walk(MIXTURE)

    @cached_property
    def draws(self) -> int:
        """Number of noise draws of a run."""
        count, zeros = 0, torch.zeros(1, *ONE, dtype=torch.float64)

        def noise() -> Tensor:
            nonlocal count
            count += 1
            return zeros.clone()

        self.run(lambda u, level: torch.zeros_like(u), zeros.clone(), noise)
        return count

    @cached_property
    def moments(self) -> Callable[[Gaussian], Response]:
        """The response to Gaussian data from a start with its exact distribution at the first level, computed once."""
        return functools.cache(self._moments)

    def _moments(self, data: Gaussian) -> Response:
        return self.respond(data, self.draws)

    def respond(
        self,
        data: Gaussian,
        draws: int,
        level_of: Callable[[Tensor, Level], Level] | None = None,
        start: Level | None = None,
    ) -> Response:
        """Return the response of a run from the exact distribution at the first level, or at ``start``.

        Args:
            draws: their number, or more.
            level_of: (input, level) to the level that the network takes its input for, where it is not ``taken_for``.
        """
        level, scale = self.first_level()
        noisy = data.at(start or level)
        begin = Gaussian(noisy.mean / scale, noisy.variances / scale**2)
        run = self.run if level_of is None else informed(self._run, level_of)
        return respond(run, data, start=begin, target=self.case.training.prediction, draws=draws)

    @cached_property
    def nonlinear(self) -> str:
        """Why the output is no affine combination of start and draws when the denoiser is; empty if it is one.

        Nearly every scheduler is one, also code without a table (because it uses a draw twice, say).
        """
        if isinstance(self.sampler, Plan):
            return "clips its x0 estimate" if any(row.clamps for row in self.sampler.rows) else ""
        reason = f"is no table ({self.sampler.reason})"
        for mean, std in LINEAR_ON:
            try:
                if not self._is_affine_on(mean, std):
                    return reason
            except Exception as error:  # code that takes no samples of such a shape
                return f"{reason}; {type(error).__name__} on basis vectors: {error}"
        return ""

    def _is_affine_on(self, mean: float, std: float) -> bool:
        """Whether a run on normal data is the combination that the response on basis vectors gives."""
        draws: list[Tensor] = []
        noise, start, one = sample_noise(), self.start(), torch.ones(1, dtype=torch.float64)

        def recorded() -> Tensor:
            draws.append(noise())
            return draws[-1]

        output = self.walk(Mixture(mean, mean, std=std), start=start, noise=recorded).output
        data, unit, target = Gaussian(mean * one, std**2 * one), Gaussian(0 * one, one), self.case.training.prediction
        columns = respond(self.run, data, start=unit, target=target, draws=len(draws)).output.columns[0]
        if len(columns) != len(draws) + 2:
            return False
        combined = columns[0] * start + columns[-1] + sum(c * z for c, z in zip(columns[1:-1], draws))
        return distance(combined, output) < 1e-6

    def point_error(self) -> float:
        """Return the largest error of the output on random points; inf if it is not finite.

        Noise that is left over counts only beyond ``left_over``: several classes of diffusers stop at the lowest level
        of the training, which the check ``ends`` reports.
        """
        data, (level, scale) = random_points(), self.first_level()
        start = (level.alpha * data.x0 + level.sigma * sample_noise(seed=0)()) / scale
        error = distance(self.walk(data, start=start).output, self.end.alpha * data.x0)
        return max(0.0, error - self.left_over)
