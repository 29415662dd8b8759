"""Frechet distance between the features of samples and of real images (Heusel et al. 2017)."""

from __future__ import annotations

import math
from dataclasses import replace

from diffexp import metric
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.feature_metric import FeatureMetric
from diffexp.components.metrics.frechet import (
    affordable_splits,
    squared_distance_influence,
    weighted_squared_distances,
)
from diffexp.components.metrics.half_samples import Estimate, estimate


@metric(
    name="fid",
    ranges={"fid": (0, None)},
    needed={"fid": 64, "fid/emoji": 128, "fid/efficientnet_lite0": 1280, "fid/inception_v3": 2048},
)
class FID(FeatureMetric):
    """``fid/<features>``: at least 0, which is the distribution of the real images; larger is worse.

    Biased upwards, by an amount that falls as 1 / N and differs between samplers. It takes as many samples as there are
    features, of which fewer have a singular covariance: 64 for ``mnist_cnn``; fewer are not ranked. The real images are
    the 60,000 training images, present as their feature moments; where classes are asked for, 500 of each. Values
    compare only with values of the same features, classes and number of samples; the interval is for that number too.
    It covers 93 to 98 % (normal, correlated, heavy-tailed features), 91 % where all features of a sample are large
    together (Student's t of 5 degrees), which few samples do not show.

    Raises:
        InputError: unknown ``features``.
    """

    def __init__(self, *, features: str | None = None, reference: str | None = None) -> None:
        super().__init__(features, reference)

    def compute(self, run: RunFacts) -> dict[str, Estimate]:
        name = f"fid/{self.features.label}"
        compared = self.compared(name, run)
        if compared is None:
            return {}
        features, (mean, covariance) = compared[0], compared[1].moments
        splits = affordable_splits(len(features), features.shape[1], run.splits)
        found = estimate(
            lambda weights: weighted_squared_distances(features, weights, mean, covariance),
            run.indices_of(len(features)),
            bounds=(0.0, math.inf),
            groups=run.groups_of(len(features)),
            count=splits,
        )
        return {name: replace(found, influence=squared_distance_influence(features, mean, covariance))}
