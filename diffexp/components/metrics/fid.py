"""Frechet distance between the features of samples and of real images (Heusel et al. 2017)."""

from __future__ import annotations

import math

from diffexp import metric
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.bootstrap import Estimate, estimate
from diffexp.components.metrics.feature_metric import SeenFeatures
from diffexp.components.metrics.frechet import weighted_squared_distances


@metric(name="fid")
class FID(SeenFeatures):
    """``fid/<features>``: 0 for the distribution of the real images, larger is worse; biased upwards by few samples.

    The real images are the 60,000 training images, present as their feature moments. Values compare only with
    values of the same features and the same number of samples; the interval is for that number too.

    Raises:
        InputError: unknown ``features``.
    """

    def __init__(self, *, features: str = "mnist_cnn") -> None:
        super().__init__(features)

    def compute(self, run: RunFacts) -> dict[str, Estimate]:
        name = f"fid/{self.features.name}"
        seen, (mean, covariance) = self.seen(name), self.features.reference.moments
        if seen is None:
            return {}
        distances = estimate(
            lambda weights: weighted_squared_distances(seen, weights, mean, covariance),
            run.indices_of(len(seen)),
            bounds=(0.0, math.inf),
        )
        return {name: distances}
