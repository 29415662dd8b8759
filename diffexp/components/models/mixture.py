"""Mixture of Gaussians: data with several modes whose optimal denoiser is still a formula."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffexp import model
from diffexp.components.models.base import Runtime
from diffexp.components.models.exact import ExactModel, exact_dtype, exact_training, read_shape
from diffexp.errors import InputError


@dataclass(frozen=True)
class MixtureModel(ExactModel):
    """Equally likely modes N(means[k], std^2 I)."""

    means: Tensor
    """[K, D], where D is the number of elements of ``shape``."""
    std: float

    @property
    def id(self) -> str:
        return "mixture"

    def sample_truth(self, count: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(self.means), (count,), generator=generator).to(self.device)
        draws = torch.randn(count, self.means.shape[1], generator=generator, dtype=self.dtype).to(self.device)
        return (self.means[chosen] + self.std * draws).view(count, *self.shape)

    def clean_and_noise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        # Noised, mode k is N(alpha * mean_k, v I) with one v for all, so that Bayes' rule is a softmax.
        v = alpha**2 * self.std**2 + sigma**2
        squares = (x.unsqueeze(1) - alpha.unsqueeze(2) * self.means).square().sum(2)  # [B, K]
        center = torch.softmax(-squares / (2 * v), dim=1) @ self.means
        whitened = (x - alpha * center) / v
        return center + alpha * self.std**2 * whitened, sigma * whitened


@model(idle=["seed where shape=[2]", "compile"])
def mixture(
    runtime: Runtime,
    *,
    shape: Sequence[int] = (2,),
    modes: int = 8,
    radius: float = 1.0,
    std: float = 0.05,
    seed: int = 0,
    schedule: Literal["vp", "ve", "edm", "flow"] = "vp",
    prediction: Literal["epsilon", "sample", "v_prediction", "flow_prediction"] | None = None,
) -> MixtureModel:
    """The optimal denoiser of a mixture of Gaussians: what a network that fits its training set perfectly would do.

    Args:
        shape: [d] for points, [channels, height, width] for images.
        modes: number of modes, equally likely; in two dimensions they stand on a ring.
        radius: of the ring; in other dimensions the means are uniform in [-radius, radius] in every coordinate.
        std: standard deviation of every mode in every direction, greater than 0.
        seed: draws the means where they do not stand on a ring.
        schedule: how it was "trained": variance preserving, variance exploding, that preconditioned, or flow matching.
        prediction: what the "network" returns; null: what networks of this schedule usually do.

    Raises:
        InputError: no modes, a std of 0 or less, an impossible shape.
    """
    size, dtype = read_shape(shape), exact_dtype(runtime)
    if modes < 1:
        raise InputError(f"model.modes={modes} must be at least 1")
    if std <= 0:
        raise InputError(f"model.std={std:g} must be greater than 0")
    means = _ring(modes) if size == (2,) else _uniform(modes, math.prod(size), seed)
    return MixtureModel(
        shape=size,
        training=exact_training(schedule, prediction),
        device=runtime.device,
        dtype=dtype,
        means=(radius * means).to(runtime.device, dtype),
        std=std,
    )


def _ring(count: int) -> Tensor:
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def _uniform(count: int, elements: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, elements, generator=generator, dtype=torch.float64) * 2 - 1
