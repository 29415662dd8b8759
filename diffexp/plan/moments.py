"""Exact statements about a sampler: no sampling, no weights.

The optimal denoiser of Gaussian data is affine. A sampler that is linear between its model calls then turns its start
noise and its draws into an affine combination of them (Pierret & Galerne, ICML 2025, arXiv:2405.14250, section 3). Its
coefficients come out when it is run on basis vectors: one column for the start noise, one for every draw, one for the
constant 1. Mean, covariance and Wasserstein distance of what it samples follow in closed form.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from diffexp.errors import InputError
from diffexp.plan.basis import Basis, Full
from diffexp.plan.execute import Network, execute
from diffexp.plan.levels import Level, Schedule, input_level
from diffexp.plan.method import Noise
from diffexp.plan.predictions import Prediction, Target
from diffexp.plan.table import Plan

Run = Callable[[Network, Tensor, Noise], Tensor]
"""(network, start, noise) to the output: ``partial(execute, plan)``, ``partial(sample, sampler)`` and the like."""


@dataclass(frozen=True)
class Gaussian:
    """N(mean, diag(variances)): data, or a sample of it, in the eigenbasis of the data's covariance."""

    mean: Tensor
    """[d], float64."""
    variances: Tensor
    """[d], float64, >= 0."""

    def at(self, level: Level) -> "Gaussian":
        """The distribution of alpha * x0 + sigma * eps."""
        return Gaussian(level.alpha * self.mean, level.alpha**2 * self.variances + level.sigma**2)

    def wasserstein(self, other: "Gaussian") -> float:
        """2-Wasserstein distance to a Gaussian with the same eigenvectors (Gelbrich 1990), >= 0."""
        apart = (self.mean - other.mean).square().sum() + (
            self.variances.sqrt() - other.variances.sqrt()
        ).square().sum()
        return math.sqrt(apart.item())


POINT = Gaussian(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
"""Data that is a single point: noise and data are then known exactly at every level."""


def posterior(
    mean: Tensor, variances: Tensor, alpha: float | Tensor, sigma: float | Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The optimal denoiser of N(mean, diag(variances)): (gain, offset) of E[x0 | x] and of E[eps | x].

    An estimate is ``gain * x + offset`` for x = alpha * x0 + sigma * eps. Two formulas instead of one that is solved
    for the other: no cancellation where sigma is small.
    """
    spread = alpha**2 * variances + sigma**2
    inverse = spread.reciprocal()
    clean = alpha * variances / spread, inverse * sigma**2 * mean
    gain = inverse * sigma
    return clean, (gain, -(gain * alpha * mean))


@dataclass(frozen=True)
class Affine:
    """A sample as an affine combination of the noise it was made from."""

    columns: Tensor
    """[d, 2 + draws]: coefficient of the start noise, of every draw in order, and the constant."""

    @property
    def moments(self) -> Gaussian:
        return Gaussian(self.columns[:, -1], self.columns[:, :-1].square().sum(dim=1))


@dataclass(frozen=True)
class Response:
    """Response of a sampler to Gaussian data."""

    seen: tuple[tuple[Level, Affine], ...]
    """Level and input of every evaluation."""
    drawn: tuple[int, ...]
    """Number of noise draws before each evaluation."""
    output: Affine


def respond(
    run: Run, data: Gaussian, *, start: Gaussian, target: Target = Prediction.EPSILON, draws: int = 0
) -> Response:
    """Run a sampler on basis vectors with the optimal denoiser of ``data``.

    Exact for samplers that are linear between their model calls, also for those that are no table (a draw used twice).

    Args:
        data: mean and variances [d].
        start: mean and variances of the start sample, [d] or [1].
        target: meaning of the network's output.
        draws: their expected number; the sampler runs again if it needs more.
    """
    while True:
        try:
            return _Columns(data, target, draws).respond(run, start)
        except Full:
            draws = 4 * draws + 16


def gaussian_output(
    plan: Plan,
    mean: Tensor,
    variances: Tensor,
    prediction: Target = Prediction.EPSILON,
    schedule: Schedule | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and variances of a plan's output on Gaussian data with the optimal denoiser.

    Args:
        mean, variances: of the data in the eigenbasis of its covariance, each [d].
        prediction: meaning of the network's output.
        schedule: of the network's training. With it the denoiser knows only the timesteps that the plan gives it, as
            networks do, and takes its input for what belongs to them; without it, for the levels of the plan's rows.

    Returns:
        mean and variances of the output in the same basis, each [d], float64.

    Raises:
        InputError: the plan clamps, so its output is not Gaussian.
    """
    if any(row.clamps for row in plan.rows):
        raise InputError(f"{plan.name} clips its x0 estimate: its output on Gaussian data is not Gaussian")
    data = Gaussian(mean.double(), variances.double())
    run = partial(execute, plan)
    if schedule is not None:
        run = informed(run, lambda u, level: input_level(schedule, level.timestep))
    made = _Columns(data, prediction, plan.draws).respond(run, started(plan.start_std))
    return made.output.moments.mean, made.output.moments.variances


def informed(run: Run, level_of: Callable[[Tensor, Level], Level]) -> Run:
    """The same run with a network that takes its input u for ``level_of(u, level)``, not for the scheduler's level."""
    return lambda network, start, noise: run(lambda u, level: network(u, level_of(u, level)), start, noise)


def started(std: float) -> Gaussian:
    """The start sample: ``std`` times standard normal noise."""
    return Gaussian(torch.zeros(1, dtype=torch.float64), torch.full((1,), std**2, dtype=torch.float64))


class _Columns:
    """The network and the noise on basis vectors; samples are [d, 1, 1, columns], directions as a batch."""

    def __init__(self, data: Gaussian, target: Target, draws: int) -> None:
        self._data, self._target, self._draws = data, target, draws
        self._basis = Basis(draws + 2, len(data.mean))
        self._seen: list[tuple[Level, Affine]] = []
        self._drawn: list[int] = []

    def respond(self, run: Run, start: Gaussian) -> Response:
        first = self._basis.fresh() * start.variances.sqrt().view(-1, 1, 1, 1)
        first[..., -1] = start.mean.view(-1, 1, 1)
        output = self._affine(run(self._network, first, self._noise))
        return Response(tuple(self._seen), tuple(self._drawn), output)

    def _network(self, u: Tensor, level: Level) -> Tensor:
        self._seen.append((level, self._affine(u)))
        self._drawn.append(self._basis.used - 1)
        mean, variances = self._data.mean.view(-1, 1, 1, 1), self._data.variances.view(-1, 1, 1, 1)
        estimates = []
        for gain, offset in posterior(mean, variances, level.alpha, level.sigma):
            estimates.append(gain * u)
            estimates[-1][..., -1:] += offset
        return self._target.output(level, *estimates)

    def _noise(self) -> Tensor:
        if self._basis.used > self._draws:  # the last column is the constant's
            raise Full
        return self._basis.fresh()

    @staticmethod
    def _affine(x: Tensor) -> Affine:
        return Affine(x.detach().reshape(len(x), -1).clone())
