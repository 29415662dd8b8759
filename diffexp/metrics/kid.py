"""Kernel distance between the features of samples and of real images (Binkowski et al. 2018)."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffexp.errors import InputError
from diffexp.metrics.base import RunFacts
from diffexp.metrics.features import load_features
from diffexp.metrics.images import as_saved, enough_samples, not_mnist
from diffexp.registry import metric

if TYPE_CHECKING:
    from torchmetrics.image.kid import KernelInceptionDistance

    from diffexp.models.base import Model


@metric(name="kid")
class KID:
    """``kid/<features>``: squared maximum mean discrepancy under ``(x.y / d + 1)^3``; unbiased, so it may be negative.

    0 for the distribution of the real images, larger is worse. The mean over ``subsets`` random subsets, at most
    ``subset_size`` images each, against 5,000 training images; ``kid_std/<features>`` is their standard deviation.
    The same images always give the same value.

    Raises:
        InputError: unknown ``features``, ``subsets`` < 1 or ``subset_size`` < 2.
    """

    def __init__(self, *, features: str = "mnist_cnn", subsets: int = 100, subset_size: int = 1000) -> None:
        if subsets < 1 or subset_size < 2:
            raise InputError("metric.kid: subsets must be at least 1 and subset_size at least 2")
        self.features = load_features(features)
        self.subsets = subsets
        self.subset_size = subset_size

    @cached_property
    def distance(self) -> KernelInceptionDistance:
        """torchmetrics' own metric with the real images already in it; made when the first batch comes."""
        from torchmetrics.image.kid import KernelInceptionDistance  # seconds to import

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "will save all extracted features": 64 numbers an image
            distance = KernelInceptionDistance(self.features.network, subsets=self.subsets, reset_real_features=False)
        distance.real_features.append(self.features.reference.samples)
        return distance

    def applies(self, model: Model) -> str | None:
        return not_mnist(model)

    def update(self, samples: Tensor, images: Tensor) -> None:
        self.distance.update(as_saved(images), real=False)

    def compute(self, run: RunFacts) -> dict[str, float]:
        count = sum(len(batch) for batch in self.distance.fake_features)
        if not enough_samples(f"kid/{self.features.name}", count):
            return {}
        self.distance.subset_size = min(self.subset_size, count, len(self.distance.real_features[0]))
        with torch.random.fork_rng(devices=[]):  # torchmetrics draws its subsets from the global generator
            torch.default_generator.manual_seed(0)
            mean, deviation = self.distance.compute()
        return {f"kid/{self.features.name}": mean.item(), f"kid_std/{self.features.name}": deviation.item()}
