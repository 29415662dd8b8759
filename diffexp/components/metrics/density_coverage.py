"""Density and coverage of samples against real images (Naeem et al. 2020)."""

from __future__ import annotations

from torch import Tensor

from diffexp import metric
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.feature_metric import FeatureMetric
from diffexp.components.metrics.neighbours import in_balls, radii_of_reference
from diffexp.errors import InputError


@metric(
    higher_is_better=("density", "coverage"),
    ranges={"density": (0, None), "coverage": (0, 1)},
    needed={"density": 16, "coverage": 500},
)
class DensityCoverage(FeatureMetric):
    """``density/<features>`` and ``coverage/<features>``, larger is better (arXiv:2002.09797, eqs. 3 and 4).

    Density is the number of real images within whose k-th neighbour a sample lies, over k: about 1 for real images, and
    unlike ``precision`` robust to outliers. Coverage, 0 to 1, is the share of real images that have a sample as near as
    their k-th neighbour. The real images are 5,000 training images. Density is a mean over samples, unbiased, and takes
    16 to be ranked; coverage grows with the number of samples, takes 500, and has no interval: on half of the samples
    it is another quantity, so that halves do not tell how it scatters.

    Args:
        k: which neighbour.

    Raises:
        InputError: unknown ``features``, or k < 1.
    """

    def __init__(self, *, features: str | None = None, reference: str | None = None, k: int = 5) -> None:
        if k < 1:
            raise InputError(f"metric.density_coverage.k={k} must be at least 1")
        super().__init__(features, reference)
        self.k = k

    def compute(self, run: RunFacts) -> dict[str, Tensor | float]:
        name = self.features.label
        compared = self.compared(f"density/{name} and coverage/{name}", run)
        if compared is None:
            return {}
        features, real = compared[0], compared[1].samples
        balls, samples = in_balls(features, real, radii_of_reference(real, self.k))
        coverage = (samples > 0).double().mean().item()
        return {f"density/{name}": balls.double() / self.k, f"coverage/{name}": coverage}
