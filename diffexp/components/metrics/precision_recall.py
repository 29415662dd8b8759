"""Improved precision and recall of samples against real images (Kynkäänniemi et al. 2019)."""

from __future__ import annotations

from torch import Tensor

from diffexp import metric
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.feature_metric import FeatureMetric
from diffexp.components.metrics.neighbours import in_balls, radii, radii_of_reference
from diffexp.errors import InputError


@metric(
    higher_is_better=("precision", "recall"),
    ranges={"precision": (0, 1), "recall": (0, 1)},
    needed={"precision": 16, "recall": 500},
)
class PrecisionRecall(FeatureMetric):
    """``precision/<features>`` and ``recall/<features>``, 0 to 1, larger is better (arXiv:1904.06991, eq. 2).

    Precision is the share of samples that lie where real images are, recall the share of real images that lie where
    samples are; "where" is within the distance of some member of the set to its k-th nearest neighbour. The real images
    are 5,000 training images. Precision is a mean over samples, unbiased, and takes 16 to be ranked; recall grows with
    the number of samples, takes 500, and has no interval: on half of the samples
    it is another quantity, so that halves do not tell how it scatters.

    Args:
        k: which neighbour.

    Raises:
        InputError: unknown ``features``, or k < 1.
    """

    def __init__(self, *, features: str | None = None, reference: str | None = None, k: int = 3) -> None:
        if k < 1:
            raise InputError(f"metric.precision_recall.k={k} must be at least 1")
        super().__init__(features, reference)
        self.k = k

    def compute(self, run: RunFacts) -> dict[str, Tensor | float]:
        name = self.features.label
        compared = self.compared(f"precision/{name} and recall/{name}", run, fewest=self.k + 1)
        if compared is None:
            return {}
        features, real = compared[0], compared[1].samples
        lifelike, _ = in_balls(features, real, radii_of_reference(real, self.k))
        found, _ = in_balls(real, features, radii(features, self.k))
        return {f"precision/{name}": (lifelike > 0).double(), f"recall/{name}": (found > 0).double().mean().item()}
