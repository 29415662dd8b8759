"""What the metrics share that look at the features of all samples at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffexp.components.metrics.applicability import enough_samples, not_mnist
from diffexp.components.metrics.features import load_features

if TYPE_CHECKING:
    from diffexp.components.models.base import Model


class SeenFeatures:
    """Collects features; a base class.

    Raises:
        InputError: unknown ``features``.
    """

    def __init__(self, features: str) -> None:
        self.features = load_features(features)
        self.batches: list[Tensor] = []

    def applies(self, model: Model) -> str | None:
        return not_mnist(model)

    def update(self, samples: Tensor, images: Tensor) -> None:
        self.batches.append(self.features.of(images))

    def seen(self, name: str, fewest: int = 2) -> Tensor | None:
        """Features of all samples (N, F), float32; None, with a line in the log, if ``name`` needs more of them."""
        enough = enough_samples(name, sum(map(len, self.batches)), fewest)
        return torch.cat(self.batches) if enough else None
