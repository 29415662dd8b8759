"""Losses: how far samples are from the accurate solutions of the same noise, or from a distribution.

Each is a function to residuals, whose mean squares are what is minimised: gradient descent needs no more, and the
Gauss-Newton method needs residuals.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from diffexp.components.metrics.feature_set import FeatureSet
from diffexp.components.metrics.features import DEFAULT, SHIPPED, load_features
from diffexp.components.metrics.mind import random_directions
from diffexp.components.models.base import HasClasses
from diffexp.errors import InputError
from diffexp.learn.fit import Curve
from diffexp.learn.problem import Problem, differences
from diffexp.learn.settings import Settings
from diffexp.learn.table import Table

SMALLEST = 1e-8
"""Added to mean squares before their logarithm."""
DIRECTIONS = 128

Residuals = Callable[[Tensor, Tensor], Tensor]
"""(samples, solutions) [B, *shape] to [R, d]; the loss is the mean over R of mean squares, or of their logarithms."""


def residuals_of(problem: Problem) -> Residuals:
    """The residuals of the loss that the settings name.

    Raises:
        InputError: there is no feature network for the images of the model.
    """
    loss = problem.settings.loss
    if loss == "pixels":
        return partial(differences, problem)
    known = _feature_set(problem)
    if loss == "features":
        return lambda x, truth: features_of(known, x) - features_of(known, truth)
    real = known.reference_of(_classes(problem)).samples
    return lambda x, truth: quantile_differences(features_of(known, x), real)


def score_of(problem: Problem, curve: Curve) -> Callable[[Table], float]:
    """What chooses the best table, on noises that learning does not see: PSNR, or the loss where it is of features."""
    if problem.settings.loss == "pixels":
        return problem.score
    residuals, size = residuals_of(problem), int(problem.config["batch_size"])
    curve.unit, curve.higher_is_better = f"({problem.settings.loss}, root mean square)", False

    @torch.no_grad()
    def score(table: Table) -> float:
        x = torch.cat([problem.samples(table, part) for part in problem.valid.batches(size)])
        return residuals(x, problem.valid.truth).square().mean().sqrt().item()

    return score


def averaged(values: Tensor, settings: Settings) -> Tensor:
    """The mean of squared distances, or of their logarithms."""
    return (values + SMALLEST).log().mean() if settings.log else values.mean()


def quantile_differences(a: Tensor, b: Tensor) -> Tensor:
    """Differences [1, directions * A] of the quantiles of random projections of features, (A, F) and (B, F).

    Their mean square is the squared sliced 2-Wasserstein distance over F, that of the metric ``mind``.
    """
    directions = random_directions(a.shape[1], DIRECTIONS).to(a)
    ours, theirs = ((directions @ part.T).sort(dim=1).values for part in (a, b))
    middles = (torch.arange(len(a)) + 0.5) / len(a)
    theirs = torch.quantile(theirs, middles.to(a), dim=1).T if len(a) != len(b) else theirs
    return (ours - theirs).reshape(1, -1)


def _classes(problem: Problem) -> list[int | None] | None:
    """The class of each sample that is learned from, where classes are asked for."""
    model = problem.run.model
    classes = model.classes if isinstance(model, HasClasses) else None
    return classes.asked(problem.run.request, range(problem.settings.train)) if classes else None


def _feature_set(problem: Problem) -> FeatureSet:
    model = problem.run.model
    known = load_features(SHIPPED.get(getattr(model, "feature_domain", ""), DEFAULT))
    if reason := known.why_not(model):
        raise InputError(f"loss={problem.settings.loss}: {reason}; choose loss=pixels")
    return known


def features_of(known: FeatureSet, x: Tensor) -> Tensor:
    """Features (B, F) of pixels [B, C, H, W] in [-1, 1]; the network is a fixed function with a gradient."""
    return known.network((x / 2 + 0.5).clamp(0, 1).float().cpu())
