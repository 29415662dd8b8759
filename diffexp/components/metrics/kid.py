"""Kernel distance between the features of samples and of real images (Binkowski et al. 2018)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from diffexp import metric
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.bootstrap import Estimate, estimate, mean_of
from diffexp.components.metrics.feature_metric import FeatureMetric

CHUNK = 1000


@metric(name="kid")
class KID(FeatureMetric):
    """``kid/<features>``: squared maximum mean discrepancy under ``(x.y / d + 1)^3``; unbiased, so it may be negative.

    0 for the distribution of the real images, larger is worse. All samples against 5,000 training images at once, not
    the mean over random subsets of the paper, which saves time: the same expectation, with less variance.

    Raises:
        InputError: unknown ``features``.
    """

    def __init__(self, *, features: str | None = None) -> None:
        super().__init__(features)

    def compute(self, run: RunFacts) -> dict[str, Estimate]:
        name = f"kid/{self.features.name}"
        compared = self.compared(name, run)
        if compared is None:
            return {}
        features, real = compared[0], compared[1].samples
        across = mean_of(torch.cat([_kernel(some, real).mean(dim=1) for some in features.split(CHUNK)]))
        among_real = _mean_kernel(real)
        distances = estimate(
            lambda weights: weighted_mean_kernel(features, weights) - 2 * across(weights) + among_real,
            run.indices_of(len(features)),
        )
        return {name: distances}


def weighted_mean_kernel(features: Tensor, weights: Tensor) -> Tensor:
    """Mean kernel between two different samples, where sample i counts ``weights[i, b]`` times, (B,) float64.

    Args:
        features: (N, d).
        weights: (N, B) float64. A sample is never paired with itself, however often it counts.
    """
    pairs = torch.zeros(weights.shape[1], dtype=torch.float64)
    for some, part in zip(features.split(CHUNK), weights.split(CHUNK)):
        pairs += ((_kernel(some, features) @ weights) * part).sum(dim=0)
    squared = weights.square()
    itself = (features.double().square().sum(dim=1) / features.shape[1] + 1) ** 3
    return (pairs - itself @ squared) / (weights.sum(dim=0).square() - squared.sum(dim=0))


@lru_cache(maxsize=4)
def _mean_kernel(features: Tensor) -> float:
    return weighted_mean_kernel(features, torch.ones(len(features), 1, dtype=torch.float64)).item()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    inner = (x @ y.T / x.shape[1] + 1).double()
    return inner * inner * inner
