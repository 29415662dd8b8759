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
from diffexp.levels import Level
from diffexp.plan.execute import History, Network, advance, execute
from diffexp.plan.method import Noise
from diffexp.plan.plan import Clamp, Plan
from diffexp.predictions import Prediction, Target

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
    """What a sampler makes of Gaussian data."""

    seen: tuple[tuple[Level, Affine], ...]
    """At every evaluation: the level that the network is told, and what it sees there."""
    drawn: tuple[int, ...]
    """How many draws had been taken by then."""
    output: Affine


def respond(
    run: Run, data: Gaussian, *, start: Gaussian, target: Target = Prediction.EPSILON, draws: int = 0
) -> Response:
    """Run a sampler on basis vectors with the optimal denoiser of ``data``.

    Exact for samplers that are linear between their model calls, also for those that are no table (a draw used twice).

    Args:
        data: mean and variances [d].
        start: mean and variances of the start sample, [d] or [1].
        target: what the network's output stands for.
        draws: how many there will be, as far as that is known; it runs again where there are more.
    """
    while True:
        try:
            return _Columns(data, target, draws).respond(run, start)
        except _Full:
            draws = 4 * draws + 16


def gaussian_output(
    plan: Plan, mean: Tensor, variances: Tensor, prediction: Target = Prediction.EPSILON
) -> tuple[Tensor, Tensor]:
    """Mean and variances of a plan's output on Gaussian data with the optimal denoiser.

    Args:
        mean, variances: of the data in the eigenbasis of its covariance, each [d].
        prediction: what the network's output stands for.

    Returns:
        mean and variances of the output in the same basis, each [d], float64.

    Raises:
        InputError: the plan clamps, so its output is not Gaussian.
    """
    if any(row.clamps for row in plan.rows):
        raise InputError(f"{plan.name} clips its x0 estimate: its output on Gaussian data is not Gaussian")
    data = Gaussian(mean.double(), variances.double())
    made = _Columns(data, prediction, plan.draws).respond(partial(execute, plan), started(plan.start_std))
    return made.output.moments.mean, made.output.moments.variances


def started(std: float) -> Gaussian:
    """The start sample: ``std`` times standard normal noise."""
    return Gaussian(torch.zeros(1, dtype=torch.float64), torch.full((1,), std**2, dtype=torch.float64))


@dataclass(frozen=True)
class Defect:
    """How far what the network sees is from what it is told, for data that is a single point x0.

    There every level is alpha * x0 + sigma * eps with an eps that never changes, which all common methods reproduce to
    rounding: a defect at one evaluation is a wrong coefficient in the update before it.
    """

    level: Level
    """Where the network is asked, or the end of the run."""
    signal: float
    """(coefficient of x0 - alpha) / sigma; at the end the plain difference to 1."""
    spread: float
    """Standard deviation of the noise over sigma, minus 1; at the end the standard deviation itself."""

    @property
    def size(self) -> float:
        """The larger of both; inf where one is not finite."""
        worst = max(abs(self.signal), abs(self.spread))
        return worst if math.isfinite(self.signal + self.spread) else math.inf


def point_defects(response: Response, end: Level) -> list[Defect]:
    """The defects of a response to ``POINT``: one per evaluation, then that of the output, which belongs at ``end``."""
    defects = []
    for level, sample in [*response.seen, (end, response.output)]:
        mean, std = sample.moments.mean.item(), math.sqrt(sample.moments.variances.item())
        sigma = level.sigma
        if sigma:
            defects.append(Defect(level, (mean - level.alpha) / sigma, std / sigma - 1))
        else:
            defects.append(Defect(level, mean - level.alpha, std))
    return defects


def coupled_distance(coarse: Response, fine: Response, on_point: Response) -> float:
    """Root mean square distance between two runs on nested grids that are driven by the same Brownian path.

    Both samples are taken at the last evaluation. The noise that the coarse run draws in a step is the sum of those
    that the fine run draws in its two steps there, weighted as they count on point data, to variance 1.

    Args:
        coarse, fine: responses to the same data, with n and 2n - 1 evaluations and at most a draw after each.
        on_point: the fine run's response to ``POINT``.

    Returns:
        the distance per coordinate, >= 0.
    """
    a, b = coarse.seen[-1][1].columns, fine.seen[-1][1].columns
    kept = [a[:, :1] - b[:, :1], a[:, -1:] - b[:, -1:]]
    for k in range(len(coarse.seen) - 1):
        own = range(coarse.drawn[k], coarse.drawn[k + 1])
        theirs = range(fine.drawn[2 * k], fine.drawn[2 * k + 2])
        weights = on_point.seen[2 * k + 2][1].columns[0, [1 + i for i in theirs]]
        weights = weights / weights.norm().clamp(min=1e-300)  # a draw may count for nothing
        coefficient = a[:, 1 + own[0] : 2 + own[0]] if own else torch.zeros_like(a[:, :1])
        kept.append(coefficient * weights - b[:, [1 + i for i in theirs]])
    return torch.cat(kept, dim=1).square().sum(dim=1).mean().sqrt().item()


def unrolled_difference(one: Plan, other: Plan) -> float:
    """Largest difference between two methods, as ``Plan.difference``, also for methods with a memory.

    Past samples depend on each other linearly, so that one method has many tables over them. Unrolled to the start, the
    outputs, the clamps and the draws, none of which can be made of others, it has only one. Both count by what the
    network sees, whatever they scale x to; levels count by their timestep.

    Returns:
        relative to the larger of 1 and the coefficient; inf for another number of evaluations.
    """
    if one.nfe != other.nfe:
        return math.inf
    shape = [(max(len(a.clamps), len(b.clamps)), max(len(a.z), len(b.z))) for a, b in zip(one.rows, other.rows)]
    draws = max(len(one.start_z), len(other.start_z))
    mine, theirs = _unrolled(one, shape, draws), _unrolled(other, shape, draws)
    scale = torch.maximum(mine.abs(), theirs.abs()).clamp(min=1.0)
    difference = torch.where(mine.isfinite() & theirs.isfinite(), (mine - theirs).abs() / scale, math.inf)
    # Infinite limits of clamps are equal where they are the same.
    difference = torch.where(mine == theirs, 0.0, difference)
    return difference.max().item()


def _unrolled(plan: Plan, shape: list[tuple[int, int]], draws: int) -> Tensor:
    """A line for what every evaluation sees, every clamp takes in, and for the output; a column for every axis."""
    axes = torch.eye(1 + draws + sum(1 + clamps + zs for clamps, zs in shape), dtype=torch.float64)
    used = 1 + draws
    x = plan.start_scale * plan.start_std * axes[0]
    for i, coefficient in enumerate(plan.start_z):
        x = x + coefficient * axes[1 + i]
    lines, history = [], History.empty()
    for row, (clamps, zs) in zip(plan.rows, shape):
        m, fresh = axes[used], iter(axes[used + 1 + clamps : used + 1 + clamps + zs])
        lines.append(torch.cat([torch.tensor([row.level.timestep, 0.0, 0.0]), row.scale * x]))
        for clamp in [*row.clamps, *[Clamp(0.0, 0.0, 0.0, 0.0)] * (clamps - len(row.clamps))]:
            limits = torch.tensor([0.0, clamp.low, clamp.high])
            lines.append(torch.cat([limits, clamp.x * x + clamp.m * m]))
        history.push(x, m, list(axes[used + 1 : used + 1 + len(row.clamps)]), plan.depth)
        x = advance(row, history, lambda fresh=fresh: next(fresh))
        used += 1 + clamps + zs
    return torch.stack([*lines, torch.cat([torch.zeros(3), x])])


class _Full(Exception):
    """More draws were taken than there are columns."""


class _Columns:
    """The network and the noise on basis vectors; samples are [d, 1, 1, columns], directions as a batch."""

    def __init__(self, data: Gaussian, target: Target, draws: int) -> None:
        self._data, self._target, self._draws = data, target, draws
        self._used = 0
        self._seen: list[tuple[Level, Affine]] = []
        self._drawn: list[int] = []

    def respond(self, run: Run, start: Gaussian) -> Response:
        first = self._zeros()
        first[..., 0] = start.variances.sqrt().view(-1, 1, 1)
        first[..., -1] = start.mean.view(-1, 1, 1)
        output = self._affine(run(self._network, first, self._noise))
        return Response(tuple(self._seen), tuple(self._drawn), output)

    def _network(self, u: Tensor, level: Level) -> Tensor:
        self._seen.append((level, self._affine(u)))
        self._drawn.append(self._used)
        alpha, sigma = level.alpha, level.sigma
        mean, variances = self._data.mean.view(-1, 1, 1, 1), self._data.variances.view(-1, 1, 1, 1)
        spread = alpha**2 * variances + sigma**2
        # Two formulas instead of one that is solved for the other: no cancellation where sigma is small.
        x0, eps = alpha * variances / spread * u, sigma / spread * u
        x0[..., -1:] += sigma**2 / spread * mean
        eps[..., -1:] -= sigma / spread * alpha * mean
        return self._target.output(level, x0, eps)

    def _noise(self) -> Tensor:
        if self._used == self._draws:
            raise _Full
        self._used += 1
        fresh = self._zeros()
        fresh[..., self._used] = 1.0
        return fresh

    def _zeros(self) -> Tensor:
        return torch.zeros(len(self._data.mean), 1, 1, self._draws + 2, dtype=torch.float64)

    @staticmethod
    def _affine(x: Tensor) -> Affine:
        return Affine(x.detach().reshape(len(x), -1).clone())
