"""Whether the digits are the requested ones."""

import torch
from torch import Tensor

from diffexp import Estimate, Model, RunFacts, estimate, load_features, mean_of, metric, quantized


@metric(higher_is_better=("accuracy", "confidence"), ranges={"accuracy": (0, 1), "confidence": (0, 1)})
class Accuracy:
    """``accuracy/<features>``: the share of digits that a classifier recognises as the requested ones; 1 is best.

    ``confidence/<features>`` is the mean probability that it gives to the requested digit; both are known per sample.
    The classifier is the feature network of ``fid`` with its last layer, right on 0.995 of the real test images.

    Args:
        features: the feature network.

    Raises:
        InputError: unknown ``features``.
    """

    def __init__(self, *, features: str = "mnist_cnn") -> None:
        self.features = load_features(features)
        self.probabilities: list[Tensor] = []

    def applies(self, model: Model) -> str | None:
        return self.features.why_not(model)

    @torch.no_grad()
    def update(self, samples: Tensor, images: Tensor) -> None:
        self.probabilities.append(self.features.network.logits(quantized(images)).softmax(dim=1))

    def compute(self, run: RunFacts) -> dict[str, Tensor | Estimate]:
        """One value per sample; where some requested no digit ("no label"), the means over the others."""
        rows = [(row, int(caption)) for row, caption in enumerate(run.captions) if caption.isdigit()]
        if not rows:
            return {}
        chosen, digits = (torch.tensor(column) for column in zip(*rows))
        probabilities = torch.cat(self.probabilities)[chosen]
        found = {"accuracy": (probabilities.argmax(dim=1) == digits).double()}
        found["confidence"] = probabilities.gather(1, digits.unsqueeze(1)).squeeze(1).double()
        indices = run.indices_of(len(run.captions))
        all_labelled = len(rows) == len(run.captions)
        return {
            f"{name}/{self.features.name}": values
            if all_labelled
            else estimate(mean_of(values), [indices[row] for row, _ in rows], bounds=(0.0, 1.0), groups=digits.tolist())
            for name, values in found.items()
        }
