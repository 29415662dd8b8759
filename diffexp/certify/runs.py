"""Runs of a certificate: data whose posterior is known, fixed noise, and comparisons."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffexp.plan.levels import Level
from diffexp.plan.method import Noise
from diffexp.plan.noise import SampleNoise

BATCH, ONE = 3, (2, 4, 4)
"""Samples of a run, and the shape of one."""


class Data(Protocol):
    """Data with a known posterior."""

    def clean_and_noise(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and E[eps | x], shaped as ``x``."""
        ...


@dataclass(frozen=True)
class Points:
    """Data where every element of a sample is one fixed point, so that x0 and eps are known exactly at every level."""

    x0: Tensor

    def clean_and_noise(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        return self.x0.to(x.dtype), (x - level.alpha * self.x0.to(x.dtype)) / level.sigma


@dataclass(frozen=True)
class Walk:
    """One run: the inputs of the network, the number of draws, and the output."""

    seen: list[tuple[Level, Tensor]]
    """Level and input of every evaluation."""
    draws: int
    output: Tensor


def sample_noise(indices: Sequence[int] = range(BATCH), seed: int = 1) -> Noise:
    """Noise that depends on the samples' indices alone, not on the rest of the batch."""
    return SampleNoise(seed, indices, ONE, dtype=torch.float64).draw


def random_points() -> Points:
    """Points in [-1, 1]."""
    generator = torch.Generator().manual_seed(7)
    return Points(2 * torch.rand(BATCH, *ONE, dtype=torch.float64, generator=generator) - 1)


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference; inf where only one of the two is finite, 0 where both are the same, NaN or not."""
    a, b = a.double(), b.double()
    same = (a == b) | (a.isnan() & b.isnan())
    difference = torch.where(same, 0.0, (a - b).abs()).max().item()
    return difference if math.isfinite(difference) else math.inf


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings that are meant for runs; a certificate reports the same in its own words."""
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


@contextmanager
def random_state_monitor() -> Iterator[Callable[[], str]]:
    """Yield a function that names the global random generator used since; an empty string for none."""
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
