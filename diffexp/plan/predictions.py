"""Predictions of networks, and how to compute the clean sample and the noise from them.

With ``x = alpha * x0 + sigma * eps`` every prediction type is linear in x and the network output m, so a type is
just two pairs of coefficients per level.
"""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from diffexp.errors import InputError
from diffexp.plan.levels import Level


class Prediction(Enum):
    """The target a network was trained for."""

    EPSILON = "epsilon"
    """The noise eps (Ho et al. 2020)."""
    SAMPLE = "sample"
    """The clean sample x0."""
    V = "v_prediction"
    """v = alpha * eps - sigma * x0 (Salimans & Ho 2022)."""
    FLOW = "flow_prediction"
    """The velocity eps - x0 of a straight path (Lipman et al. 2023)."""

    def clean(self, level: Level) -> tuple[float, float]:
        """(p, q) with x0 = p * x + q * m.

        Raises:
            InputError: the prediction carries no x0 at this level (epsilon at alpha = 0).
        """
        alpha, sigma = level.alpha, level.sigma
        match self:
            case Prediction.EPSILON:
                if alpha == 0:
                    raise InputError(
                        f"an epsilon prediction has no x0 estimate at timestep {level.timestep:g}, where alpha = 0"
                    )
                return 1 / alpha, -sigma / alpha
            case Prediction.SAMPLE:
                return 0.0, 1.0
            case Prediction.V:
                square = alpha**2 + sigma**2
                return alpha / square, -sigma / square
            case Prediction.FLOW:
                return 1 / (alpha + sigma), -sigma / (alpha + sigma)

    def noise(self, level: Level) -> tuple[float, float]:
        """(p, q) with eps = p * x + q * m.

        Raises:
            InputError: the prediction carries no noise at this level (sample prediction at sigma = 0).
        """
        alpha, sigma = level.alpha, level.sigma
        match self:
            case Prediction.EPSILON:
                return 0.0, 1.0
            case Prediction.SAMPLE:
                if sigma == 0:
                    raise InputError(
                        f"a sample prediction has no noise estimate at timestep {level.timestep:g}, where sigma = 0"
                    )
                return 1 / sigma, -alpha / sigma
            case Prediction.V:
                square = alpha**2 + sigma**2
                return sigma / square, alpha / square
            case Prediction.FLOW:
                return 1 / (alpha + sigma), alpha / (alpha + sigma)

    def output(self, level: Level, x0: Tensor, eps: Tensor) -> Tensor:
        """The output of a network of this type for the estimates x0 and eps."""
        match self:
            case Prediction.EPSILON:
                return eps
            case Prediction.SAMPLE:
                return x0
            case Prediction.V:
                return level.alpha * eps - level.sigma * x0
            case Prediction.FLOW:
                return eps - x0


@dataclass(frozen=True)
class Preconditioned:
    """The network inside the preconditioning of EDM (Karras et al. 2022, arXiv:2206.00364, eq. 7 and table 1).

    x0 = c_skip * x + c_out * m. It holds at any scaling of x: the formulas read x / alpha at ratio sigma / alpha.
    """

    sigma_data: float = 0.5
    """Standard deviation of the data."""
    sign: float = 1.0
    """-1 for networks whose c_out is negated (diffusers' ``prediction_type="v_prediction"`` in its EDM schedulers)."""

    value = "edm"
    """Its name in configs, as the ``value`` of a ``Prediction``."""

    def clean(self, level: Level) -> tuple[float, float]:
        """(p, q) with x0 = p * x + q * m."""
        ratio, data = level.ratio, self.sigma_data
        scale = math.hypot(ratio, data)
        return (data / scale) ** 2 / level.alpha, self.sign * ratio * data / scale

    def noise(self, level: Level) -> tuple[float, float]:
        """(p, q) with eps = p * x + q * m: (x / alpha - x0) / ratio, multiplied out."""
        ratio, data = level.ratio, self.sigma_data
        scale = math.hypot(ratio, data)
        return ratio / scale**2 / level.alpha, -self.sign * data / scale

    def output(self, level: Level, x0: Tensor, eps: Tensor) -> Tensor:
        """The output of the network for the estimates x0 and eps."""
        ratio, data = level.ratio, self.sigma_data
        return (ratio / data * x0 - data * eps) * (self.sign / math.hypot(ratio, data))


Target = Prediction | Preconditioned
"""Types of a model's ``prediction``."""


@dataclass(frozen=True)
class Clip:
    """Clamp the x0 estimate to [-limit, limit]."""

    limit: float = 1.0

    def __call__(self, x0: Tensor) -> Tensor:
        return torch.clamp(x0, -self.limit, self.limit)


@dataclass(frozen=True)
class DynamicThreshold:
    """Dynamic thresholding (Saharia et al. 2022, section 2.3): clamp to a sample's own quantile, then rescale."""

    ratio: float = 0.995
    """Quantile of |x0| over a sample."""
    max_value: float = 1.0
    """Upper bound of the threshold; the lower one is 1."""

    def __call__(self, x0: Tensor) -> Tensor:
        # torch.quantile takes neither half precision nor more than 2^24 elements; a sample is far below that.
        threshold = torch.quantile(
            x0.abs().flatten(1).to(torch.promote_types(x0.dtype, torch.float32)), self.ratio, dim=1
        )
        threshold = threshold.clamp(1.0, self.max_value).to(x0.dtype).view(-1, *[1] * (x0.ndim - 1))
        return torch.minimum(torch.maximum(x0, -threshold), threshold) / threshold
