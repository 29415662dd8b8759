"""Whether the digits are those that were asked for."""

import torch
from torch import Tensor

from diffexp import metric
from diffexp.metrics.base import RunFacts
from diffexp.metrics.features import load_features
from diffexp.metrics.images import as_saved, not_mnist
from diffexp.models.base import Model


@metric
class Accuracy:
    """``accuracy/<features>``: the share of digits that a classifier takes for what was asked for; 1 is best.

    ``confidence/<features>`` is the mean probability that it gives to that digit. The classifier is the feature network
    of ``fid`` with its last layer, right on 0.995 of the real test images.

    Args:
        features: the feature network.

    Raises:
        InputError: unknown ``features``.
    """

    def __init__(self, *, features: str = "mnist_cnn") -> None:
        self.features = load_features(features)
        self.seen: list[Tensor] = []

    def applies(self, model: Model) -> str | None:
        return not_mnist(model)

    @torch.no_grad()
    def update(self, samples: Tensor, images: Tensor) -> None:
        self.seen.append(self.features.network.logits(as_saved(images)).softmax(dim=1))

    def compute(self, run: RunFacts) -> dict[str, float]:
        """Nothing for samples of no digit ("no label")."""
        rows = [(index, int(caption)) for index, caption in enumerate(run.captions) if caption.isdigit()]
        if not rows:
            return {}
        indices, digits = (torch.tensor(column) for column in zip(*rows))
        probabilities = torch.cat(self.seen)[indices]
        right = (probabilities.argmax(dim=1) == digits).float().mean().item()
        confidence = probabilities.gather(1, digits.unsqueeze(1)).mean().item()
        return {f"accuracy/{self.features.name}": right, f"confidence/{self.features.name}": confidence}
