"""Bootstrap over samples: the spread of a value under other noise.

Resamples are a function of the indices of the samples. Two runs from the same noise are therefore resampled alike, and
the resamples of their difference are the differences of their resamples: effects of the noise on both cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from diffexp.components.metrics.intervals import COVERAGE, mean_interval

RESAMPLES = 400
FEWEST = 16
"""Below this many samples there are no intervals: their variance is unknown, and a resample may be empty."""
BLOCK = 1 << 20
"""Numbers in the weights that a statistic gets at once, so that its memory does not grow with the samples."""
_SEED = 20_240_229

Statistic = Callable[[Tensor], Tensor]
"""Weights of the samples, (N, B) float64, to the value under each of the B weightings, (B,)."""


@dataclass(frozen=True)
class Estimate:
    """A value, with the values of the same statistic on resamples of the samples."""

    value: float
    resamples: Tensor
    """(RESAMPLES,) float64; empty where there were too few samples."""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    """Smallest and largest possible value."""
    of_mean: tuple[float, float] | None = None
    """The interval where the value is a mean; see ``intervals.mean_interval``."""

    @property
    def deviations(self) -> Tensor:
        """The resamples minus their mean, (RESAMPLES,)."""
        return self.resamples - self.resamples.mean()

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval: ``of_mean``, or quantiles of the resamples, shifted to ``value``; None without resamples.

        Shifted, because many distances (FID above all) are larger for a set with fewer distinct members, as every
        resample is; that bias is no spread. The interval is for the mean over runs of this many samples, and for
        distances between distributions it is conservative: about twice as wide as needed at 64 samples (recall's three
        times), and for FID still by a third at 1,000.
        """
        if not len(self.resamples) or not self.resamples.isfinite().all():
            return None
        tail = (1 - COVERAGE) / 2
        quantiles = torch.tensor([tail, 1 - tail], dtype=torch.float64)
        low, high = self.of_mean or (self.value + self.deviations.quantile(quantiles)).tolist()
        return max(low, self.bounds[0]), min(high, self.bounds[1])


def weights(indices: Sequence[int], count: int = RESAMPLES) -> Tensor:
    """Multiplicity of each sample in each resample, (len(indices), count) uint8; not to be written to.

    Independent Poisson(1) counts (Hanley & MacGibbon 2006): as many as a resample of a large set holds of each, and
    unlike multinomial ones they do not depend on the size of the set. Sample i has the same counts in every run.
    """
    return _weightings(tuple(indices), count)[:, 1:]


@lru_cache(maxsize=4)  # the same for every metric of a run
def _weightings(indices: tuple[int, ...], count: int) -> Tensor:
    """Each sample once, followed by ``weights``, (len(indices), 1 + count)."""
    counts = np.ones((len(indices), 1 + count), dtype=np.uint8)  # of 10^12 draws, the largest is about 14
    for row, index in zip(counts, indices):
        row[1:] = np.random.default_rng((_SEED, index)).poisson(size=count)
    return torch.from_numpy(counts)


def estimate(
    statistic: Statistic, indices: Sequence[int], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Estimate:
    """Evaluate a statistic on the samples with these indices, and on their resamples, some of these at a time."""
    at_once = max(1, BLOCK // max(1, len(indices)))
    values = torch.cat([statistic(some.double()) for some in _resampled(indices).split(at_once, dim=1)])
    of_mean = statistic.interval if isinstance(statistic, Mean) and len(indices) >= FEWEST else None
    return Estimate(values[0].item(), values[1:], bounds, of_mean)


def estimate_at_once(
    statistic: Callable[[Tensor], Tensor],
    indices: Sequence[int],
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """``estimate`` of a statistic that takes all weightings at once, compactly, (N, B) uint8.

    For one whose work for the samples themselves is large, and done once for all weightings.
    """
    values = statistic(_resampled(indices))
    return Estimate(values[0].item(), values[1:], bounds)


def _resampled(indices: Sequence[int]) -> Tensor:
    return _weightings(tuple(indices), RESAMPLES if len(indices) >= FEWEST else 0)


@dataclass(frozen=True)
class Mean:
    """The weighted mean as a statistic, whose interval is known without resamples."""

    values: Tensor
    """(N,) float64."""

    def __call__(self, weights: Tensor) -> Tensor:
        return (self.values @ weights) / weights.sum(dim=0)

    @property
    def interval(self) -> tuple[float, float]:
        """See ``mean_interval``."""
        low, high = mean_interval(self.values)
        return low.item(), high.item()


def mean_of(values: Tensor) -> Mean:
    """The weighted mean of one value per sample, (N,), as a statistic."""
    return Mean(values.double())
