"""Data with a known exact solution: a two-mode mixture, and Gaussians with the spectra of images."""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from diffexp.components.models.gaussian import natural_spectrum
from diffexp.plan.levels import Level
from diffexp.plan.moments import POINT, Gaussian

SPECTRUM_FILE = Path(__file__).with_name("mnist_spectrum.safetensors")


@dataclass(frozen=True)
class Mixture:
    """Data whose elements are independent draws from ``(1 - weight) N(low, std^2) + weight N(high, std^2)``.

    In one dimension the probability-flow ODE is the monotone map between the distributions at two levels, because it
    keeps the share of probability on either side of a path. Its exact solution is therefore an inverse distribution
    function, and needs no ODE solver.
    """

    low: float = -1.0
    high: float = 1.2
    weight: float = 0.6
    std: float = 0.6

    def clean_and_noise(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and E[eps | x] in the shape and dtype of ``x``."""
        alpha, sigma = level.alpha, level.sigma
        v = alpha**2 * self.std**2 + sigma**2
        middle, apart = (self.low + self.high) / 2, self.high - self.low
        odds = math.log(self.weight / (1 - self.weight)) + alpha * apart / v * (x - alpha * middle)
        center = self.low + apart * torch.sigmoid(odds)
        whitened = (x - alpha * center) / v
        return center + alpha * self.std**2 * whitened, sigma * whitened

    def transport(self, x: Tensor, here: Level, there: Level) -> Tensor:
        """Solve the probability-flow ODE from ``x`` at ``here`` to ``there``; float64, accurate to about 1e-13."""
        x = x.double()
        share = self._below(x, here)
        low, high = (self._quantile_bound(there, side) for side in (-1.0, 1.0))
        low, high = torch.full_like(x, low), torch.full_like(x, high)
        for _ in range(60):
            middle = (low + high) / 2
            above = self._below(middle, there) > share
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        y = (low + high) / 2
        for _ in range(2):  # Newton's method for the last digits
            y = y - (self._below(y, there) - share) / self._density(y, there)
        return y

    def _modes(self, level: Level) -> tuple[float, float, float]:
        scale = math.sqrt(level.alpha**2 * self.std**2 + level.sigma**2)
        return level.alpha * self.low, level.alpha * self.high, scale

    def _below(self, x: Tensor, level: Level) -> Tensor:
        low, high, scale = self._modes(level)
        return (1 - self.weight) * _normal_below((x - low) / scale) + self.weight * _normal_below((x - high) / scale)

    def _density(self, x: Tensor, level: Level) -> Tensor:
        low, high, scale = self._modes(level)
        bells = [torch.exp(-(((x - mode) / scale) ** 2) / 2) for mode in (low, high)]
        return ((1 - self.weight) * bells[0] + self.weight * bells[1]) / (scale * math.sqrt(2 * math.pi))

    def _quantile_bound(self, level: Level, side: float) -> float:
        low, high, scale = self._modes(level)
        return (low if side < 0 else high) + side * 9 * scale


def _normal_below(z: Tensor) -> Tensor:
    return torch.special.erfc(-z / math.sqrt(2)) / 2


MIXTURE = Mixture()


DATA = Gaussian(
    torch.tensor([0.5, -1.0, 0.2, 0.0], dtype=torch.float64), torch.tensor([1.0, 0.3, 0.05, 0.5], dtype=torch.float64)
)
"""Gaussian data of a few elements."""
BOTH = Gaussian(torch.cat([POINT.mean, DATA.mean]), torch.cat([POINT.variances, DATA.variances]))
"""A point, then ``DATA``."""


@cache
def spectra() -> dict[str, Gaussian]:
    """Gaussians with the mean and spectrum of MNIST (32 x 32, in [-1, 1]) and with the 1/f^2 of natural images."""
    natural = torch.tensor(natural_spectrum((32, 32)), dtype=torch.float64)
    return {"mnist": _mnist(), "natural": Gaussian(torch.zeros_like(natural), natural)}


def _mnist() -> Gaussian:
    """Load the statistics of all 60,000 training images, made by ``python -m diffexp.train task=spectrum``."""
    tensors = load_file(SPECTRUM_FILE)
    return Gaussian(tensors["mean"].double(), tensors["variances"].double())
