"""Half-samples: the variance of a value under other noise, estimated without bias from the samples of one run.

The samples are split into two halves at random, many times, and a statistic is evaluated on both halves. They are
independent, so that over all runs their values do not covary. The covariance is that within runs, over splits, plus
that between runs, which is the variance of the mean over splits: this is therefore minus the covariance over splits,
whatever the statistic (the variance estimate of Wang & Lindsay 2014, "Variance estimation of a general U-statistic with
application to cross-validation", Statistica Sinica 24). The bootstrap and the jackknife are right for statistics that
are about linear; for distances between nearly equal distributions they give three and two times the variance.

The mean over splits stands for the value itself: of statistics whose level depends little on the number of samples.
Not of the shares of real images that samples reach (recall, coverage), whose variance this underestimates.

Splits are a function of the indices of the samples. Two runs from the same noise are therefore split alike, and the
difference of their values on a half is that of the difference: effects of the noise on both cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from diffexp.components.metrics.intervals import influence_interval, mean_interval, t_quantile

SPLITS = 256
FEWEST = 16
"""Below this many samples there are no intervals: halves are too small for most statistics."""
BLOCK = 1 << 20
"""Numbers in the weights that a statistic gets at once, so that its memory does not grow with the samples."""
_SEED = 20_240_229

Statistic = Callable[[Tensor], Tensor]
"""Weights of the samples, (N, B) float64, to the value under each of the B weightings, (B,)."""


@dataclass(frozen=True)
class Estimate:
    """A value, with the values of the same statistic on halves of the samples."""

    value: float
    halves: Tensor
    """(2, SPLITS) float64: of both halves of every split; without splits where there were too few samples."""
    count: int
    """The number of samples."""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    """Smallest and largest possible value."""
    of_mean: tuple[float, float] | None = None
    """The interval where the value is a mean; see ``intervals.mean_interval``."""
    influence: Tensor | None = None
    """What each sample adds to the value, times N: (N,), up to a constant; None where it is not known."""
    error: float | None = None
    """The standard error of the value, where it is known without halves."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean over runs of this many samples; None where there are too few.

        With the skewness of influences where they are known (``intervals.influence_interval``). Otherwise, of values
        that cannot be negative, it is that of the root, squared: such distances scatter more where they are large.
        """
        if not self.halves.shape[1] or not self.halves.isfinite().all():
            return None
        low, high = self.of_mean or self._ends()
        return max(low, self.bounds[0]), min(high, self.bounds[1])

    def _ends(self) -> tuple[float, float]:
        if self.influence is not None and self.error is not None:
            return influence_interval(self.value, self.influence, self.error)
        variance, freedom = (found.item() for found in spread(self.halves, self.count))
        if self.influence is not None and self.influence.isfinite().all():
            return influence_interval(self.value, self.influence, math.sqrt(variance), freedom)
        width = t_quantile(freedom) * math.sqrt(variance)
        if self.bounds == (0.0, math.inf) and self.value > 0:
            root, of_root = math.sqrt(self.value), width / (2 * math.sqrt(self.value))
            return max(root - of_root, 0.0) ** 2, (root + of_root) ** 2
        return self.value - width, self.value + width


def spread(halves: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The variance of a value, and the degrees of freedom of this estimate (Satterthwaite 1946).

    The variance is minus the covariance over splits, and at least a quarter of that of half the difference of halves:
    the estimate is noisy where the statistic is far from linear, and would be half of that if it were quadratic.

    Args:
        halves: (..., 2, B), the values on both halves of B splits.
        count: the number of samples.

    Returns:
        Two tensors of the leading shape, float64.
    """
    centred = halves.double() - halves.double().mean(dim=(-2, -1), keepdim=True)
    first, second = centred.unbind(-2)
    products = -first * second
    variance = torch.maximum(products.mean(-1), (first - second).square().mean(-1) / 16)
    noise = products.var(-1) / products.shape[-1]
    sampling = 2 * variance.square() / max(count - 1, 1)
    freedom = 2 * variance.square() / (noise + sampling)
    return variance, torch.where(variance > 0, freedom, max(count - 1, 1)).clamp(min=1.0)


def splits(indices: Sequence[int], groups: Sequence[object] | None = None) -> Tensor:
    """The samples of the first half of every split, (len(indices), SPLITS) uint8 of 0 and 1; not to be written to.

    Of two neighbours in the same group, one is in each half: the samples of a group, which were asked for the same
    thing, are independent of each other, and what differs between groups is no noise. A pair's halves depend on the
    index of its first member alone, and so are the same in every run.

    Args:
        groups: what was asked for, of each sample; None: the same of all.
    """
    return _weightings(tuple(indices), _as_key(groups), SPLITS)[:, 1 : 1 + SPLITS]


def estimate(
    statistic: Statistic,
    indices: Sequence[int],
    bounds: tuple[float, float] = (-math.inf, math.inf),
    groups: Sequence[object] | None = None,
    count: int = SPLITS,
) -> Estimate:
    """Evaluate a statistic on the samples with these indices, and on halves of them, some of these at a time.

    Args:
        statistic: of weights 0 and 1, for samples that are left out or not.
        bounds: smallest and largest possible value.
        groups: see ``splits``.
        count: of splits, the first ones of ``splits``; fewer where a statistic takes long, 0 for no interval.
    """
    at_once = max(1, BLOCK // max(1, len(indices)))
    values = torch.cat([statistic(some.double()) for some in _weighted(indices, groups, count).split(at_once, dim=1)])
    of_mean = statistic.interval if isinstance(statistic, Mean) and len(indices) >= FEWEST else None
    return _estimate(values, len(indices), bounds, of_mean)


def estimate_at_once(
    statistic: Callable[[Tensor], Tensor],
    indices: Sequence[int],
    bounds: tuple[float, float] = (-math.inf, math.inf),
    groups: Sequence[object] | None = None,
    count: int = SPLITS,
) -> Estimate:
    """``estimate`` of a statistic that takes all weightings at once, compactly, (N, B) uint8.

    For one whose work for the samples themselves is large, and done once for all weightings.
    """
    return _estimate(statistic(_weighted(indices, groups, count)), len(indices), bounds, None)


def extrapolate(
    statistic: Statistic, indices: Sequence[int], groups: Sequence[object] | None = None, count: int = SPLITS
) -> Estimate:
    """``estimate`` of what a statistic would be for endlessly many samples, if its bias falls as 1 / N.

    2 s(N) - s(N / 2), where s(N / 2) is the mean over halves; for a half, s(N / 4) is the mean over its own halves.

    Raises:
        ValueError: there are fewer than ``FEWEST`` samples.
    """
    if len(indices) < FEWEST:
        raise ValueError(f"{len(indices)} samples are too few to be halved; it takes {FEWEST}")
    whole = estimate(statistic, indices, groups=groups, count=count)
    at_once = max(1, BLOCK // len(indices))
    parts = _quarters(indices, groups, count).split(at_once, dim=1)
    quarters = torch.cat([statistic(some.double()) for some in parts])
    halves = 2 * whole.halves - quarters.reshape(2, 2, -1).mean(dim=1)
    return Estimate(2 * whole.value - whole.halves.mean().item(), halves, len(indices))


def _quarters(indices: Sequence[int], groups: Sequence[object] | None, count: int) -> Tensor:
    """Both halves of the first and of the second half of ``count`` splits, (N, 4 * count) uint8.

    They take turns with the pairs, of which the half has one sample each.
    """
    bits = np.zeros((len(indices), count), dtype=np.uint8)
    pairs = _pairs(indices, _as_key(groups))
    for number, pair in enumerate(pairs):
        first = pairs[number - number % 2][0]
        own = np.random.default_rng((_SEED + 1, indices[first])).integers(0, 2, size=count, dtype=np.uint8)
        for place in pair:
            if place is not None:
                bits[place] = own ^ (number % 2)
    half = splits(indices, groups)[:, :count].numpy()
    parts = [side * bit for side in (half, 1 - half) for bit in (bits, 1 - bits)]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def _estimate(values: Tensor, count: int, bounds: tuple[float, float], of_mean: tuple[float, float] | None) -> Estimate:
    return Estimate(values[0].item(), values[1:].reshape(2, len(values) // 2), count, bounds, of_mean)


def _weighted(indices: Sequence[int], groups: Sequence[object] | None, count: int = SPLITS) -> Tensor:
    return _weightings(tuple(indices), _as_key(groups), count if len(indices) >= FEWEST else 0)


def _as_key(groups: Sequence[object] | None) -> tuple[str, ...] | None:
    return None if groups is None else tuple(map(str, groups))


@lru_cache(maxsize=4)  # the same for every metric of a run
def _weightings(indices: tuple[int, ...], groups: tuple[str, ...] | None, count: int) -> Tensor:
    """Each sample once, then the first and the second halves of ``count`` splits, (N, 1 + 2 * count) uint8."""
    halves = np.ones((len(indices), count), dtype=np.uint8)
    for first, second in _pairs(indices, groups):
        halves[first] = np.random.default_rng((_SEED, indices[first])).integers(0, 2, size=count, dtype=np.uint8)
        if second is not None:
            halves[second] = 1 - halves[first]
    whole = np.ones((len(indices), 1), dtype=np.uint8)
    return torch.from_numpy(np.concatenate([whole, halves, 1 - halves], axis=1))


def _pairs(indices: Sequence[int], groups: Sequence[str] | None) -> list[tuple[int, int | None]]:
    """Positions of pairs of samples of the same group; of those that are left over, of any, and perhaps one alone."""
    members: dict[str, list[int]] = {}
    for place in sorted(range(len(indices)), key=indices.__getitem__):
        members.setdefault(groups[place] if groups else "", []).append(place)
    single = sorted((places.pop() for places in members.values() if len(places) % 2), key=indices.__getitem__)
    rows = [*members.values(), single]
    found: list[tuple[int, int | None]] = [pair for row in rows for pair in zip(row[::2], row[1::2])]
    return [*found, (single[-1], None)] if len(single) % 2 else found


@dataclass(frozen=True)
class Mean:
    """The weighted mean as a statistic, whose interval is known without splits."""

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
