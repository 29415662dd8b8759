"""What the exact models share: data whose optimal denoiser is a formula, seen through the model interface.

The network with the least loss is the posterior mean E[x0 | x_t] (Karras et al. 2022, arXiv:2206.00364, appendix B.3);
every prediction type is a linear function of it. An exact model therefore has no training error: what a sampler gets
wrong is the sampler's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffexp.errors import InputError
from diffexp.levels import Level, VPSchedule
from diffexp.models.base import Condition, Request, Runtime, pixels_to_images
from diffexp.models.labels import unconditional
from diffexp.predictions import Prediction

_BETAS = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000}
SCHEDULE = VPSchedule.from_betas(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, num_train_timesteps=1000)


@dataclass(frozen=True)
class ExactModel(ABC):
    """A distribution of known form as a model; VP schedule with linear betas, as in Ho et al. 2020."""

    shape: tuple[int, ...]
    prediction: Prediction
    device: torch.device
    dtype: torch.dtype

    schedule = SCHEDULE
    clip = None
    spacing = "leading"
    steps_offset = 0
    weights_sha256 = None
    guidance_scale = 1.0

    @property
    @abstractmethod
    def id(self) -> str: ...

    @abstractmethod
    def sample_truth(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws from the data distribution itself, [count, *shape]; ``generator`` lives on the CPU."""

    @abstractmethod
    def clean_and_noise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and E[eps | x] for flattened ``x`` [B, D] with ``alpha``, ``sigma`` [B, 1]; both [B, D].

        Two formulas instead of one that is solved for the other: no cancellation where sigma is small.
        """

    @property
    def scheduler_config(self) -> dict[str, Any]:
        spacing = {"timestep_spacing": self.spacing, "steps_offset": self.steps_offset}
        return _BETAS | spacing | {"prediction_type": self.prediction.value, "clip_sample": False}

    def posterior_mean(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x_t = x] for ``x`` [B, *shape], computed and returned in this model's dtype."""
        flat = x.to(self.device, self.dtype).flatten(1)
        alpha, sigma = (torch.full_like(flat[:, :1], value) for value in (level.alpha, level.sigma))
        return self.clean_and_noise(flat, alpha, sigma)[0].reshape(x.shape)

    def conditions(self, request: Request, indices: Sequence[int]) -> Condition:
        return unconditional(self.id, request, len(indices))

    def predict(self, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Computed in this model's dtype; comes back in that of ``u``. Every sample may have its own timestep."""
        flat = u.to(self.device, self.dtype).flatten(1)
        alpha, sigma = self._levels(t)
        clean, noise = self.clean_and_noise(flat, alpha, sigma)
        match self.prediction:
            case Prediction.EPSILON:
                out = noise
            case Prediction.SAMPLE:
                out = clean
            case Prediction.V:
                out = alpha * noise - sigma * clean
            case Prediction.FLOW:
                out = noise - clean
        return out.reshape(u.shape).to(u.dtype)

    def decode(self, x: Tensor) -> Tensor:
        return pixels_to_images(x) if len(self.shape) == 3 else x

    def describe(self, condition: Condition) -> list[str]:
        return condition.captions

    @cached_property
    def _ratios(self) -> Tensor:
        return torch.tensor(self.schedule.ratios, device=self.device, dtype=torch.float64)

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``schedule.at`` for a tensor of timesteps: alpha and sigma, each [B, 1]."""
        t = t.to(self.device, torch.float64)
        low = t.floor().long().clamp(0, len(self._ratios) - 2)
        ratio = torch.lerp(self._ratios[low], self._ratios[low + 1], t - low).unsqueeze(1)
        alpha = torch.rsqrt(1 + ratio**2)
        return alpha.to(self.dtype), (ratio * alpha).to(self.dtype)


def read_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Raises InputError unless ``shape`` is that of points (d,) or of images (channels, height, width)."""
    size = tuple(shape)
    if len(size) not in (1, 3) or any(n < 1 for n in size):
        raise InputError(f"model.shape={list(shape)} should be [d] for points or [channels, height, width] for images")
    if len(size) == 3 and size[0] not in (1, 3):
        raise InputError(f"model.shape={list(shape)}: an image has 1 or 3 channels, not {size[0]}")
    return size


def read_prediction(name: str) -> Prediction:
    """Raises InputError for a prediction type that does not exist."""
    known = [kind.value for kind in Prediction]
    if name not in known:
        raise InputError(f"model.prediction={name} is not known; it should be one of {', '.join(known)}")
    return Prediction(name)


def exact_dtype(runtime: Runtime) -> torch.dtype:
    """float64 unless told otherwise: these formulas are tiny, and there to be exact."""
    return runtime.dtype or (torch.float32 if runtime.device.type == "mps" else torch.float64)
