"""Wasserstein distance between samples and the truth, for the models whose truth is known."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffexp import metric
from diffexp.components.metrics.applicability import enough_samples
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.bootstrap import Estimate, estimate
from diffexp.components.metrics.frechet import weighted_squared_distances
from diffexp.errors import InputError

if TYPE_CHECKING:
    from diffexp.components.models.base import Model
    from diffexp.plan.table import Plan

log = logging.getLogger(__name__)

PROJECTIONS = 256
SEED = 0


@metric
class Wasserstein:
    """2-Wasserstein distances to the true distribution, >= 0 and in the units of the samples.

    For ``model=gaussian``: ``wasserstein2/samples`` is that of the Gaussian fitted to the samples, biased upwards by
    few of them; ``wasserstein2/exact`` that of the plan's own output distribution, without sampling noise.
    For ``model=mixture``: ``sliced_wasserstein2/samples`` against as many true draws and ``sliced_wasserstein2/floor``,
    what two sets of true draws of that size have between them.
    """

    reads_samples = True

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def applies(self, model: Model) -> str | None:
        if model.id in ("gaussian", "mixture"):
            return None
        return f"the true distribution of {model.id} is not known in closed form"

    def update(self, samples: Tensor, images: Tensor) -> None:
        self.batches.append(samples.flatten(start_dim=1).double())

    def compute(self, run: RunFacts) -> dict[str, float | Estimate]:
        samples = torch.cat(self.batches) if self.batches else torch.empty(0, math.prod(run.model.shape))
        return _gaussian(samples, run) if run.model.id == "gaussian" else _mixture(samples, run)


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


def _gaussian(samples: Tensor, run: RunFacts) -> dict[str, float | Estimate]:
    truth: Any = run.model  # the exact models know more about themselves than the Model protocol
    values: dict[str, float | Estimate] = {}
    if enough_samples("wasserstein2/samples", len(samples)):
        mean, covariance = truth.mean.double().cpu(), truth.covariance.double().cpu()
        values["wasserstein2/samples"] = estimate(
            lambda weights: weighted_squared_distances(samples, weights, mean, covariance).sqrt(),
            run.indices_of(len(samples)),
            bounds=(0.0, math.inf),
        )
    if run.plan is not None:
        try:
            values["wasserstein2/exact"] = _exact(run.plan, truth)
        except InputError as reason:  # a plan that clips is not linear
            log.info("wasserstein2/exact: left out, %s", reason)
    return values


def _exact(plan: Plan, truth: Any) -> float:
    """Between the truth and what the plan makes of the optimal denoiser: both are diagonal in one eigenbasis."""
    from diffexp.plan.moments import gaussian_output

    variances = truth.variances.double().cpu()
    mean = truth.basis.T.double().cpu() @ truth.mean.double().cpu()
    mean_out, variances_out = gaussian_output(plan, mean, variances, truth.prediction)
    spread = variances_out.clamp(min=0).sqrt() - variances.sqrt()
    return math.hypot((mean_out - mean).norm().item(), spread.norm().item())


def _mixture(samples: Tensor, run: RunFacts) -> dict[str, float | Estimate]:
    if not enough_samples("sliced_wasserstein2/samples", len(samples)):
        return {}
    truth: Any = run.model
    draws = truth.sample_truth(2 * len(samples), torch.Generator().manual_seed(SEED))
    draws, more_draws = draws.flatten(start_dim=1).double().cpu().split(len(samples))
    return {
        "sliced_wasserstein2/samples": sliced_wasserstein(samples, draws),
        "sliced_wasserstein2/floor": sliced_wasserstein(more_draws, draws),
    }
