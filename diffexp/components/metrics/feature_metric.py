"""Base class of the metrics that compare features of all samples with those of real images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffexp.components.metrics.applicability import enough_samples
from diffexp.components.metrics.features import load_features

if TYPE_CHECKING:
    from diffexp.components.models.base import Model


class FeatureMetric:
    """A metric that collects the features of its run's samples.

    Args:
        features: name of a feature set; see ``load_features``.

    Raises:
        InputError: unknown ``features``.
    """

    def __init__(self, features: str) -> None:
        self.features = load_features(features)
        self.batches: list[Tensor] = []

    def applies(self, model: Model) -> str | None:
        return self.features.why_not(model)

    def update(self, samples: Tensor, images: Tensor) -> None:
        self.batches.append(self.features.of(images))

    def collected(self, name: str, fewest: int = 2) -> Tensor | None:
        """Features of all samples (N, F), float32; None, with a warning, if ``name`` needs more than there are."""
        enough = enough_samples(name, sum(map(len, self.batches)), fewest)
        return torch.cat(self.batches) if enough else None
