"""Sliced Wasserstein distance between the features of samples and of real images (Berthet et al. 2026)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from diffexp import metric
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.feature_metric import FeatureMetric
from diffexp.components.metrics.half_samples import Estimate, estimate_at_once
from diffexp.errors import InputError

SEED = 0
SCALE = 3
"""Times the number of features: the factor of the paper, by which values are about as large as those of FID."""
BLOCK = 1 << 20
"""Numbers in the ranks that are in memory."""


@metric(name="mind", ranges={"mind": (0, None)}, needed={"mind": 32})
class MIND(FeatureMetric):
    """``mind/<features>``: Monge Inception Distance (arXiv:2605.06797), >= 0; larger is worse.

    3 d times the mean, over random directions in the space of the d features, of the squared 2-Wasserstein distance of
    the projections: 0 for the distribution of the real images. Unlike FID it sees more than means and covariances, and
    its bias by few samples is smaller. The real images are 5,000 training images. Values compare only with values of
    the same features, classes and number of samples; it takes 32 to be ranked, about 200 for samplers that differ
    clearly.

    Args:
        features: as of ``fid``.
        projections: the number of directions, the same in every run.

    Raises:
        InputError: unknown ``features``, or no projections.
    """

    def __init__(self, *, features: str | None = None, reference: str | None = None, projections: int = 256) -> None:
        if projections < 1:
            raise InputError(f"metric.mind.projections={projections} must be at least 1")
        super().__init__(features, reference)
        self.projections = projections

    def compute(self, run: RunFacts) -> dict[str, Estimate]:
        name = f"mind/{self.features.label}"
        compared = self.compared(name, run)
        if compared is None:
            return {}
        features, real = compared[0], compared[1].samples
        directions = random_directions(features.shape[1], self.projections)
        count = len(features)

        def distances(weights: Tensor) -> Tensor:
            parts = weights.split(max(1, BLOCK // max(1, count)), dim=1)
            found = [sliced_squared_distances(features, part.float(), real, directions) for part in parts]
            return SCALE * features.shape[1] * torch.cat(found)

        indices, groups = run.indices_of(count), run.groups_of(count)
        found = estimate_at_once(distances, indices, bounds=(0.0, math.inf), groups=groups, count=run.splits)
        influence = SCALE * features.shape[1] * sliced_influence(features, real, directions)
        return {name: replace(found, influence=influence)}


def random_directions(size: int, count: int) -> Tensor:
    """Unit vectors (count, size), float32; the first ones are the same for every count."""
    directions = torch.randn(count, size, generator=torch.Generator().manual_seed(SEED))
    return directions / directions.norm(dim=1, keepdim=True)


def sliced_squared_distances(features: Tensor, weights: Tensor, real: Tensor, directions: Tensor) -> Tensor:
    """Mean over directions of the squared 2-Wasserstein distance of projections, for each weighting, (B,) float64.

    In one dimension the optimal map is monotone: the distance is that of quantile functions, here those of weighted and
    of equally weighted points, which are constant between their steps.

    Args:
        features: (N, d).
        weights: (N, B), at least one of each column positive.
        real: (M, d).
        directions: (P, d).
    """
    total = weights.sum(dim=0)
    found = torch.zeros(weights.shape[1], dtype=torch.float64)
    for direction in directions:
        values, order = (features @ direction).sort()
        target = (real @ direction).sort().values.double()
        own = weights[order]
        ranks = own.cumsum(dim=0) / total
        products = _sum_of_products(values.double(), ranks, target)
        squares = (values.square().double() @ own.double()) / total
        found += squares + target.square().mean() - 2 * products
    return (found / len(directions)).clamp(min=0)


def sliced_influence(features: Tensor, real: Tensor, directions: Tensor) -> Tensor:
    """The influence of each sample on ``sliced_squared_distances``, (N,) float64, up to a constant.

    In one dimension that is Kantorovich's potential x^2 - 2 (integral of the optimal map up to x), averaged over the
    directions; see Santambrogio 2015, "Optimal transport for applied mathematicians", section 7.2.
    """
    count = len(features)
    found = torch.zeros(count, dtype=torch.float64)
    ranks = torch.arange(1, count, dtype=torch.float64) / count
    for direction in directions:
        values, order = (features @ direction).double().sort()
        target = (real @ direction).double().sort().values
        mapped = target[(ranks * len(target)).long().clamp(max=len(target) - 1)]
        growth = values.square().diff() - 2 * values.diff() * mapped
        found[order[1:]] += growth.cumsum(dim=0)
    return found / len(directions)


def _sum_of_products(values: Tensor, ranks: Tensor, target: Tensor) -> Tensor:
    """The integral over u in (0, 1) of the product of two quantile functions, (B,).

    Args:
        values: (N,), increasing; those of the first function.
        ranks: (N, B), where each of its steps ends.
        target: (M,), increasing; of the second function, whose steps are equally long.
    """
    integral = torch.cat([target.new_zeros(1), target.cumsum(0)]) / len(target)
    places = ranks.double() * len(target)
    step = places.floor().clamp(max=len(target) - 1)
    below = integral[step.long()]
    at_ranks = below + (places - step) * target[step.long()] / len(target)
    # By parts: sum of values times the differences of the integral.
    return values[-1] * at_ranks[-1] - ((values[1:] - values[:-1])[:, None] * at_ranks[:-1]).sum(dim=0)
