"""Frechet distance between the features of samples and of real images (Heusel et al. 2017)."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from diffexp.metrics.base import RunFacts
from diffexp.metrics.features import load_features
from diffexp.metrics.images import as_saved, enough_samples, not_mnist
from diffexp.registry import metric

if TYPE_CHECKING:
    from torchmetrics.image.fid import FrechetInceptionDistance

    from diffexp.models.base import Model


@metric(name="fid")
class FID:
    """``fid/<features>``: 0 for the distribution of the real images, larger is worse; biased upwards by few samples.

    The real images are the 60,000 training images, present as their feature moments. Values compare only with
    values of the same features and the same number of samples.

    Raises:
        InputError: unknown ``features``.
    """

    def __init__(self, *, features: str = "mnist_cnn") -> None:
        self.features = load_features(features)
        self.name = f"fid/{features}"

    @cached_property
    def distance(self) -> FrechetInceptionDistance:
        """torchmetrics' own metric with the real images already in it; made when the first batch comes."""
        from torchmetrics.image.fid import FrechetInceptionDistance  # seconds to import

        reference = self.features.reference
        distance = FrechetInceptionDistance(self.features.network, reset_real_features=False)
        distance.real_features_sum.copy_(reference.total)
        distance.real_features_cov_sum.copy_(reference.outer)
        distance.real_features_num_samples.fill_(reference.num_samples)
        return distance

    def applies(self, model: Model) -> str | None:
        return not_mnist(model)

    def update(self, samples: Tensor, images: Tensor) -> None:
        self.distance.update(as_saved(images), real=False)

    def compute(self, run: RunFacts) -> dict[str, float]:
        if not enough_samples(self.name, int(self.distance.fake_features_num_samples)):
            return {}
        return {self.name: self.distance.compute().item()}
