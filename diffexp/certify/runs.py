"""Running a scheduler on data that is known, and watching it."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffexp.certify.bound import Bound
from diffexp.certify.data import MIXTURE
from diffexp.plan.levels import Level
from diffexp.plan.method import Noise
from diffexp.plan.moments import Gaussian, Response, respond
from diffexp.plan.noise import SampleNoise
from diffexp.plan.table import Plan

BATCH, ONE = 3, (2, 4, 4)
"""Samples of a run, and the shape of one."""
LEFT_OVER = 0.02
"""Standard deviation of the noise that a class may leave in its output."""


class Data(Protocol):
    """Data with a known posterior."""

    def clean_and_noise(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and E[eps | x], shaped as ``x``."""
        ...


@dataclass(frozen=True)
class Points:
    """Every element of a sample is a point of its own, so that noise and data are known exactly at every level."""

    x0: Tensor

    def clean_and_noise(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        return self.x0.to(x.dtype), (x - level.alpha * self.x0.to(x.dtype)) / level.sigma


@dataclass(frozen=True)
class Walk:
    """One run: what the network was asked, and what came out."""

    seen: list[tuple[Level, Tensor]]
    draws: int
    output: Tensor


def walk(bound: Bound, data: Data, *, start: Tensor | None = None, noise: Noise | None = None) -> Walk:
    """Run a scheduler's code on ``data``, in float64, from a fixed start and with fixed noise unless they are given."""
    noise = noise or sample_noise()
    seen: list[tuple[Level, Tensor]] = []
    draws = 0

    def network(u: Tensor, level: Level) -> Tensor:
        seen.append((level, u.clone()))
        return bound.case.training.prediction.output(level, *data.clean_and_noise(u, level))

    def counted() -> Tensor:
        nonlocal draws
        draws += 1
        return noise()

    output = bound.run(network, start_of(bound) if start is None else start, counted)
    return Walk(seen, draws, output)


def usual_walk(bound: Bound) -> Walk:
    """``walk`` on the mixture, made once."""
    return bound.once("walk", lambda: walk(bound, MIXTURE))


def sample_noise(indices: Sequence[int] = range(BATCH), seed: int = 1) -> Noise:
    """Noise that belongs to the samples with these indices, whoever else is in the batch."""
    return SampleNoise(seed, indices, ONE, dtype=torch.float64).draw


def start_of(bound: Bound, indices: Sequence[int] = range(BATCH)) -> Tensor:
    """The start of the samples with these indices, [len(indices), *ONE]."""
    return bound.start_std * sample_noise(indices, seed=0)()


def draws_of(bound: Bound) -> int:
    """How often a run draws noise from its source."""
    return bound.once("draws", lambda: _count_draws(bound))


def _count_draws(bound: Bound) -> int:
    count = 0

    def noise() -> Tensor:
        nonlocal count
        count += 1
        return torch.zeros(1, *ONE, dtype=torch.float64)

    zeros = torch.zeros(1, *ONE, dtype=torch.float64)
    bound.run(lambda u, level: torch.zeros_like(u), zeros, noise)
    return count


def first_level(bound: Bound) -> tuple[Level, float]:
    """Where a run begins, and what its start sample is multiplied by before the network sees it."""
    if bound.levels is not None:
        return bound.levels[0], 1.0

    def network(u: Tensor, level: Level) -> Tensor:
        raise _Seen(level, u.flatten()[0].item())

    try:
        bound.run(network, torch.ones(1, *ONE, dtype=torch.float64), lambda: torch.zeros(1, *ONE, dtype=torch.float64))
    except _Seen as seen:
        return seen.level, seen.scale
    raise AssertionError("the network was never asked")


class _Seen(Exception):
    def __init__(self, level: Level, scale: float) -> None:
        super().__init__()
        self.level, self.scale = level, scale


def exact_start(bound: Bound, data: Gaussian) -> Gaussian:
    """The data's distribution at the first level, in the scale in which the scheduler wants its start."""
    level, scale = first_level(bound)
    noisy = data.at(level)
    return Gaussian(noisy.mean / scale, noisy.variances / scale**2)


def moments(bound: Bound, data: Gaussian) -> Response:
    """The response to Gaussian data from a start that has its exact distribution at the first level; made once."""

    def made() -> tuple[Gaussian, Response]:
        start, target = exact_start(bound, data), bound.case.training.prediction
        return data, respond(bound.run, data, start=start, target=target, draws=draws_of(bound))

    return bound.once(("moments", id(data)), made)[1]  # kept with the data, so that no other has its id


def point_data() -> Points:
    """Points in [-1, 1]."""
    generator = torch.Generator().manual_seed(7)
    return Points(2 * torch.rand(BATCH, *ONE, dtype=torch.float64, generator=generator) - 1)


LINEAR_ON = ((1.0, 0.0), (0.0, 0.0025), (0.3, 0.25), (1.0, 1.0))
"""Mean and variance of the data on which code that is no table is tried; what branches on it will differ somewhere."""


def nonlinear(bound: Bound) -> str:
    """Why the output is no affine combination of start and draws where the denoiser is; empty where it is one.

    Nearly every scheduler is one, also code that is no table because it uses a draw twice, say.
    """
    return bound.once("nonlinear", lambda: _why_nonlinear(bound))


def _why_nonlinear(bound: Bound) -> str:
    if isinstance(bound.sampler, Plan):
        return "clips its x0 estimate" if any(row.clamps for row in bound.sampler.rows) else ""
    reason = f"is no table ({bound.sampler.reason})"
    for mean, variance in LINEAR_ON:
        data = Gaussian(torch.full((1,), mean, dtype=torch.float64), torch.full((1,), variance, dtype=torch.float64))
        try:
            if not _affine_on(bound, data):
                return reason
        except Exception as error:  # code that takes no samples of such a shape
            return f"{reason}; {type(error).__name__} on basis vectors: {error}"
    return ""


def _affine_on(bound: Bound, data: Gaussian) -> bool:
    """Whether a run on a batch of samples is what the response on basis vectors says."""
    draws: list[Tensor] = []
    noise, start = sample_noise(), start_of(bound)

    def remembered() -> Tensor:
        draws.append(noise())
        return draws[-1]

    def network(u: Tensor, level: Level) -> Tensor:
        mean, variance = data.mean.item(), data.variances.item()
        spread = level.alpha**2 * variance + level.sigma**2
        x0 = (level.alpha * variance * u + level.sigma**2 * mean) / spread
        return bound.case.training.prediction.output(level, x0, level.sigma * (u - level.alpha * mean) / spread)

    made = bound.run(network, start, remembered)
    unit = Gaussian(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    response = respond(bound.run, data, start=unit, target=bound.case.training.prediction, draws=len(draws))
    columns = response.output.columns[0]
    if len(columns) != len(draws) + 2:
        return False
    told = columns[0] * start + columns[-1] + sum(c * z for c, z in zip(columns[1:-1], draws))
    return distance(told, made) < 1e-6


def point_error(bound: Bound) -> float:
    """Largest error of the output where every element is a point of its own; inf where it is not finite.

    Noise that is left over counts as far as it is more than ``LEFT_OVER``: several classes of diffusers stop at the
    lowest level of the training, which ``ends`` tells.
    """
    data, (level, scale) = point_data(), first_level(bound)
    start = (level.alpha * data.x0 + level.sigma * sample_noise(seed=0)()) / scale
    error = distance(walk(bound, data, start=start).output, bound.end.alpha * data.x0)
    return error if bound.levels is not None else max(0.0, error - 5 * LEFT_OVER)


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference; inf where only one of the two is finite, 0 where both are the same, NaN or not."""
    a, b = a.double(), b.double()
    same = (a == b) | (a.isnan() & b.isnan())
    difference = torch.where(same, 0.0, (a - b).abs()).max().item()
    return difference if math.isfinite(difference) else math.inf


@contextmanager
def watching_random_state() -> Iterator[Callable[[], str]]:
    """Yields a function that says which global source of random numbers has been used since; empty for none."""
    import random

    import numpy as np

    before = (torch.get_rng_state(), str(np.random.get_state()), random.getstate())  # noqa: NPY002

    def used() -> str:
        if not torch.equal(before[0], torch.get_rng_state()):
            return "torch's global generator"
        if before[1] != str(np.random.get_state()):  # noqa: NPY002
            return "numpy's global generator"
        return "Python's random module" if before[2] != random.getstate() else ""

    yield used
