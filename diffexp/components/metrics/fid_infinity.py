"""Frechet distance extrapolated to endlessly many samples (Chong & Forsyth 2020)."""

from __future__ import annotations

from dataclasses import replace

from diffexp import metric
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.feature_metric import FeatureMetric
from diffexp.components.metrics.frechet import (
    affordable_splits,
    squared_distance_influence,
    weighted_squared_distances,
)
from diffexp.components.metrics.half_samples import SPLITS, Estimate, extrapolate


@metric(name="fid_infinity", needed={"fid_infinity": 260})
class FIDInfinity(FeatureMetric):
    """``fid_infinity/<features>``: FID without the part that falls as 1 / N with the samples; may be negative.

    0 for the distribution of the real images, larger is worse; without a bound, and hardly biased. FID = FID_infinity +
    b / N for many samples, with a b that differs between samplers (arXiv:1911.07023); here it is known from the mean
    FID of halves of the samples: FID_infinity = 2 FID(N) - FID(N / 2). Values of runs with different numbers of samples
    compare, at the price of wider intervals. A quarter of the samples must have a covariance of full rank: that takes
    260 for ``mnist_cnn``.

    Raises:
        InputError: unknown ``features``.
    """

    running = False  # it takes halves

    def __init__(self, *, features: str | None = None, reference: str | None = None) -> None:
        super().__init__(features, reference)

    def compute(self, run: RunFacts) -> dict[str, Estimate]:
        name = f"fid_infinity/{self.features.label}"
        compared = self.compared(name, run, fewest=4 * (self.features.network.num_features + 1))
        if compared is None:
            return {}
        features, (mean, covariance) = compared[0], compared[1].moments
        count = len(features)
        found = extrapolate(
            lambda weights: weighted_squared_distances(features, weights, mean, covariance),
            run.indices_of(count),
            groups=run.groups_of(count),
            count=affordable_splits(count, features.shape[1], SPLITS),
        )
        return {name: replace(found, influence=squared_distance_influence(features, mean, covariance))}
