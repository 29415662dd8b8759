"""Losses: how far samples are from the accurate solutions of the same noise, or from their distribution."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from diffexp.components.metrics.features import FeatureSet, load_features
from diffexp.components.metrics.mind import random_directions
from diffexp.errors import InputError
from diffexp.learn.problem import Problem, distances
from diffexp.learn.settings import Settings

SMALLEST = 1e-8
"""Added to mean squares before their logarithm."""
DIRECTIONS = 128

Loss = Callable[[Tensor, Tensor], Tensor]
"""(samples, solutions) [B, *shape] to one number."""


def loss_of(problem: Problem) -> Loss:
    """The loss that the settings name.

    Raises:
        InputError: there is no feature network for the images of the model.
    """
    settings = problem.settings
    if settings.loss == "pixels":
        return lambda x, truth: averaged(distances(problem, x, truth), settings)
    features = partial(_features, _feature_set(problem))
    if settings.loss == "features":
        return lambda x, truth: averaged((features(x) - features(truth)).square().mean(dim=1), settings)
    return lambda x, truth: averaged(sliced_distance(features(x), features(truth))[None], settings)


def averaged(values: Tensor, settings: Settings) -> Tensor:
    """The mean of squared distances, or of their logarithms."""
    return (values + SMALLEST).log().mean() if settings.log else values.mean()


def sliced_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared sliced 2-Wasserstein distance of as many features as solutions, (B, F) each: MIND's, differentiable."""
    directions = random_directions(a.shape[1], DIRECTIONS).to(a)
    ours, theirs = ((part @ directions.T).sort(dim=0).values for part in (a, b))
    return a.shape[1] * (ours - theirs).square().mean()


def _feature_set(problem: Problem) -> FeatureSet:
    known, model = load_features("mnist_cnn"), problem.run.model
    if reason := known.why_not(model):
        raise InputError(f"loss={problem.settings.loss}: {reason}; choose loss=pixels")
    return known


def _features(known: FeatureSet, x: Tensor) -> Tensor:
    """Features (B, F) of pixels [B, C, H, W] in [-1, 1]; the network is a fixed function with a gradient."""
    images = (x / 2 + 0.5).clamp(0, 1).cpu()
    with torch.enable_grad():
        return known.network(images)
