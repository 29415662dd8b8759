"""Frechet distance between the features of samples and of real images (Heusel et al. 2017)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffexp.metrics.base import RunFacts
from diffexp.metrics.features import load_features
from diffexp.metrics.frechet import weighted_squared_distances
from diffexp.metrics.images import enough_samples, not_mnist
from diffexp.metrics.resampling import Estimate, estimate
from diffexp.registry import metric

if TYPE_CHECKING:
    from diffexp.models.base import Model


@metric(name="fid")
class FID:
    """``fid/<features>``: 0 for the distribution of the real images, larger is worse; biased upwards by few samples.

    The real images are the 60,000 training images, present as their feature moments. Values compare only with
    values of the same features and the same number of samples; the interval is for that number too.

    Raises:
        InputError: unknown ``features``.
    """

    def __init__(self, *, features: str = "mnist_cnn") -> None:
        self.features = load_features(features)
        self.name = f"fid/{features}"
        self.seen: list[Tensor] = []

    def applies(self, model: Model) -> str | None:
        return not_mnist(model)

    def update(self, samples: Tensor, images: Tensor) -> None:
        self.seen.append(self.features.of(images))

    def compute(self, run: RunFacts) -> dict[str, Estimate]:
        count = sum(map(len, self.seen))
        if not enough_samples(self.name, count):
            return {}
        seen, (mean, covariance) = torch.cat(self.seen), self.features.reference.moments
        distances = estimate(
            lambda weights: weighted_squared_distances(seen, weights, mean, covariance),
            run.indices_of(count),
            bounds=(0.0, math.inf),
        )
        return {self.name: distances}
