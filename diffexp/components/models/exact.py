"""Base of exact models: data whose optimal denoiser is a formula, as a model.

The network with the least loss is the posterior mean E[x0 | x_t] (Karras et al. 2022, arXiv:2206.00364, appendix B.3);
every prediction type is a linear function of it. An exact model therefore has no training error: what a sampler gets
wrong is the sampler's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffexp.components.models.base import Condition, ModelBase, Request, Runtime
from diffexp.components.models.labels import unconditional
from diffexp.errors import InputError
from diffexp.plan.levels import Level, input_level
from diffexp.plan.predictions import Preconditioned, Prediction
from diffexp.plan.schedules import FlowSchedule, VESchedule, VPSchedule
from diffexp.plan.training import Training

_BETAS = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000}

ScheduleName = Literal["vp", "ve", "edm", "flow"]
PredictionName = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]


def exact_training(schedule: ScheduleName, prediction: PredictionName | None) -> Training:
    """The training schedule of a name, with what its networks usually predict unless ``prediction`` is given.

    ``vp``: DDPM's linear betas, epsilon. ``ve``: sigma from 0.002 to 80, epsilon. ``edm``: the same inside EDM's
    preconditioning. ``flow``: straight paths, the velocity.

    Raises:
        InputError: ``edm`` with another prediction than its own, or an unknown name.
    """
    if prediction is not None and prediction not in (known := [kind.value for kind in Prediction]):
        raise InputError(f"model.prediction={prediction} is not known; it should be one of {', '.join(known)}")
    epsilon = prediction or "epsilon"
    match schedule:
        case "vp":
            spacing = {"timestep_spacing": "leading", "steps_offset": 0}
            config = {**_BETAS, **spacing, "prediction_type": epsilon, "clip_sample": False}
            return Training(VPSchedule.from_betas(**_BETAS), Prediction(epsilon), scheduler_config=config)
        case "ve":
            return Training(VESchedule(), Prediction(epsilon), spacing="karras")
        case "edm":
            if prediction is not None:
                raise InputError("model.schedule=edm has a prediction of its own; leave model.prediction out")
            edm = VESchedule(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)
            config = {"sigma_min": edm.sigma_min, "sigma_max": edm.sigma_max, "sigma_data": edm.sigma_data}
            return Training(edm, Preconditioned(0.5), scheduler_config=config, spacing="karras")
        case "flow":
            config = {"shift": 1.0, "num_train_timesteps": 1000}
            return Training(FlowSchedule(), Prediction(prediction or "flow_prediction"), None, config, "flow")
    raise InputError(f"model.schedule={schedule} is not known; it should be one of vp, ve, edm, flow")


@dataclass(frozen=True)
class ExactModel(ModelBase, ABC):
    """A distribution of known form as a model."""

    shape: tuple[int, ...]
    training: Training
    device: torch.device
    dtype: torch.dtype

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
        out = torch.empty_like(flat)
        for timestep in set(t.tolist()):  # usually one
            rows = t == timestep
            out[rows] = self._output(flat[rows], input_level(self.schedule, timestep))
        return out.reshape(u.shape).to(u.dtype)

    def _output(self, u: Tensor, level: Level) -> Tensor:
        alpha, sigma = (torch.full_like(u[:, :1], value) for value in (level.alpha, level.sigma))
        return self.prediction.output(level, *self.clean_and_noise(u, alpha, sigma))


def read_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Raises InputError unless ``shape`` is that of points (d,) or of images (channels, height, width)."""
    size = tuple(shape)
    if len(size) not in (1, 3) or any(n < 1 for n in size):
        raise InputError(f"model.shape={list(shape)} should be [d] for points or [channels, height, width] for images")
    if len(size) == 3 and size[0] not in (1, 3):
        raise InputError(f"model.shape={list(shape)}: an image has 1 or 3 channels, not {size[0]}")
    return size


def exact_dtype(runtime: Runtime) -> torch.dtype:
    """float64 by default (float32 on MPS, which has no float64): these formulas are small and meant to be exact."""
    return runtime.dtype or (torch.float32 if runtime.device.type == "mps" else torch.float64)
