"""Wasserstein distance between samples and the truth, for the models whose truth is known."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffexp import metric
from diffexp.components.metrics.applicability import enough_samples
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.frechet import squared_distance_influence, weighted_squared_distances
from diffexp.components.metrics.half_samples import Estimate, estimate
from diffexp.components.models.truth import KnowsGaussian, KnowsTruth
from diffexp.errors import InputError

if TYPE_CHECKING:
    from diffexp.components.models.base import Model
    from diffexp.plan.table import Plan

log = logging.getLogger(__name__)

PROJECTIONS = 256
SEED = 0


@metric(
    ranges={"wasserstein2": (0, None), "sliced_wasserstein2": (0, None)},
    needed={"wasserstein2/samples": 32, "sliced_wasserstein2/samples": 32},
)
class Wasserstein:
    """2-Wasserstein distances to the true distribution, >= 0 and in the units of the samples; smaller is better.

    For Gaussian data: ``wasserstein2/samples`` is the distance of the Gaussian fitted to the samples, biased upwards by
    few of them, so that it takes 32 to be ranked; its intervals cover 84 to 95 % where it is hardly above 0.
    ``wasserstein2/exact`` is the distance of the plan's own output distribution, without sampling noise, where the
    network uses the timesteps that it gets. For other data that can be sampled: ``sliced_wasserstein2/samples`` is the
    distance to as many samples of the data, ``sliced_wasserstein2/floor`` that of two sets of samples of that size.
    """

    reads_samples = True
    running = True

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def applies(self, model: Model) -> str | None:
        if isinstance(model, KnowsTruth):
            return None
        return f"the true distribution of {model.id} is not known in closed form"

    def update(self, samples: Tensor, images: Tensor) -> None:
        self.batches.append(samples.flatten(start_dim=1).double())

    def compute(self, run: RunFacts) -> dict[str, float | Estimate]:
        samples = torch.cat(self.batches) if self.batches else torch.empty(0, math.prod(run.model.shape))
        if isinstance(run.model, KnowsGaussian):
            return _to_gaussian(samples, run, run.model)
        return _to_samples(samples, run, run.model) if isinstance(run.model, KnowsTruth) else {}


def sliced_wasserstein(points: Tensor, others: Tensor, projections: int = PROJECTIONS, seed: int = SEED) -> float:
    """Root mean square, over random directions, of the 1-D 2-Wasserstein distance (Bonneel et al. 2015).

    Args:
        points, others: (N, d), equally many, since in 1-D the optimal plan then pairs them in sorted order.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(points.shape[1], projections, generator=generator, dtype=torch.float64)
    directions /= directions.norm(dim=0)
    gaps = (points.double() @ directions).sort(dim=0).values - (others.double() @ directions).sort(dim=0).values
    return gaps.square().mean().sqrt().item()


def _to_gaussian(samples: Tensor, run: RunFacts, truth: KnowsGaussian) -> dict[str, float | Estimate]:
    values: dict[str, float | Estimate] = {}
    if enough_samples("wasserstein2/samples", len(samples), run):
        mean, covariance = truth.mean.double().cpu(), truth.covariance.double().cpu()
        found = estimate(
            lambda weights: weighted_squared_distances(samples, weights, mean, covariance).sqrt(),
            run.indices_of(len(samples)),
            bounds=(0.0, math.inf),
            groups=run.groups_of(len(samples)),
            count=run.splits,
        )
        influence = squared_distance_influence(samples, mean, covariance)
        values["wasserstein2/samples"] = replace(
            found, influence=influence / (2 * found.value) if found.value else None
        )
    if run.plan is not None and not run.so_far:  # it does not change
        try:
            values["wasserstein2/exact"] = _exact(run.plan, truth)
        except InputError as reason:  # a plan that clips is not linear
            log.info("wasserstein2/exact: skipped, %s", reason)
    return values


def _exact(plan: Plan, truth: KnowsGaussian) -> float:
    """Distance of the plan's output under the optimal denoiser to the data; both are diagonal in one eigenbasis."""
    from diffexp.plan.moments import gaussian_output

    variances = truth.variances.double().cpu()
    mean = truth.basis.T.double().cpu() @ truth.mean.double().cpu()
    mean_out, variances_out = gaussian_output(plan, mean, variances, truth.prediction, truth.schedule)
    spread = variances_out.clamp(min=0).sqrt() - variances.sqrt()
    return math.hypot((mean_out - mean).norm().item(), spread.norm().item())


def _to_samples(samples: Tensor, run: RunFacts, truth: KnowsTruth) -> dict[str, float | Estimate]:
    if not enough_samples("sliced_wasserstein2/samples", len(samples), run):
        return {}
    draws = truth.sample_truth(2 * len(samples), torch.Generator().manual_seed(SEED))
    draws, more_draws = draws.flatten(start_dim=1).double().cpu().split(len(samples))
    return {
        "sliced_wasserstein2/samples": sliced_wasserstein(samples, draws),
        "sliced_wasserstein2/floor": sliced_wasserstein(more_draws, draws),
    }
