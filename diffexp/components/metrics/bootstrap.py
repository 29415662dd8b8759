"""The bootstrap over samples: how far a value would move, had other noise been drawn.

Resamples belong to the indices of the samples. Two runs that drew from the same noise are therefore resampled alike,
and the resamples of their difference are the differences of their resamples: what the noise does to both cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 400
FEWEST = 16
"""Below this many samples there are no intervals: the scatter of so few says nothing, and a resample may be empty."""
COVERAGE = 0.95
_SEED = 20_240_229

Statistic = Callable[[Tensor], Tensor]
"""Weights of the samples, (N, B) float64, to the value under each of the B weightings, (B,)."""


@dataclass(frozen=True)
class Estimate:
    """A value, with what the same computation gives on resamples of the samples."""

    value: float
    resamples: Tensor
    """(RESAMPLES,) float64; empty where there were too few samples."""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    """What the value can be at all."""

    @property
    def deviations(self) -> Tensor:
        """How the resamples scatter about their own mean, (RESAMPLES,)."""
        return self.resamples - self.resamples.mean()

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval: quantiles of the resamples, moved to ``value``; None without resamples.

        Moved, because many distances (FID above all) grow when a set is made poorer, as every resample is; the bias
        says nothing about the scatter. It is an interval for what this many samples give on average, and a wide one for
        distances between distributions: about twice as wide as it need be at 64 samples (recall's thrice), and still by
        a third, for FID, at 1,000.
        """
        if not len(self.resamples) or not self.resamples.isfinite().all():
            return None
        tail = (1 - COVERAGE) / 2
        low, high = self.deviations.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
        return max(self.value + low, self.bounds[0]), min(self.value + high, self.bounds[1])


def weights(indices: Sequence[int], count: int = RESAMPLES) -> Tensor:
    """How often each sample is in each resample, (len(indices), count) float64; not to be written to.

    Independent Poisson(1) counts (Hanley & MacGibbon 2006): as many as a resample of a large set holds of each, and
    unlike multinomial ones they need not know the size of the set. Sample i has the same counts in every run.
    """
    return _weights(tuple(indices), count)


@lru_cache(maxsize=4)  # every metric of a run asks for the same
def _weights(indices: tuple[int, ...], count: int) -> Tensor:
    counts = [np.random.default_rng((_SEED, index)).poisson(size=count) for index in indices]
    return torch.from_numpy(np.array(counts, dtype=np.float64).reshape(len(indices), count))


def estimate(
    statistic: Statistic, indices: Sequence[int], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Estimate:
    """A value of the samples with these indices, and its resamples."""
    once = torch.ones(len(indices), 1, dtype=torch.float64)
    drawn = weights(indices, RESAMPLES if len(indices) >= FEWEST else 0)
    values = statistic(torch.cat([once, drawn], dim=1))
    return Estimate(values[0].item(), values[1:], bounds)


def mean_of(values: Tensor) -> Statistic:
    """The mean of one value a sample, (N,)."""
    values = values.double()
    return lambda weights: (values @ weights) / weights.sum(dim=0)
