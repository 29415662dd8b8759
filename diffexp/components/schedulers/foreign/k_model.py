"""The model that samplers of k-diffusion and of ComfyUI call, with what they ask of it besides."""

import math
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from diffexp.components.schedulers.shared.sigma_space import SigmaSpace
from diffexp.plan.levels import Levels, Schedule
from diffexp.plan.method import Denoiser

POST_CFG = "sampler_post_cfg_function"
"""Entry of ComfyUI's ``model_options``: functions of the estimates with and without guidance, which return one."""


class KModel:
    """The x0 estimate as k-diffusion's ``model(x, sigma)``, on x and sigma of a ``SigmaSpace``.

    ComfyUI wraps its network twice, in a guider and a patcher: ``model.inner_model.inner_model.model_sampling`` and
    ``model.inner_model.model_patcher.get_model_object("model_sampling")`` are the noise schedule. Guidance is part of
    the network here, so that hooks get its estimate as the one without guidance too; see ``unconditional_was_read``.
    """

    def __init__(
        self, denoise: Denoiser, levels: Levels, space: SigmaSpace, sigmas: Tensor, *, check_finite: bool = False
    ) -> None:
        self._denoise = denoise
        self._check_finite = check_finite
        self._space = space
        self._visited = dict(zip(sigmas.tolist(), levels))
        self.unconditional_was_read = False
        """Whether a hook has read the estimate without guidance."""
        sampling = _model_sampling(space, levels.schedule, sigmas)
        network = SimpleNamespace(model_sampling=sampling)
        patcher = SimpleNamespace(model=network, model_options={}, get_model_object=lambda name: getattr(network, name))
        self.inner_model = SimpleNamespace(
            inner_model=network, model_patcher=patcher, model_options={}, model_sampling=sampling
        )

    def __call__(self, x: Tensor, sigma: Tensor, model_options: Mapping[str, Any] | None = None, **_: Any) -> Tensor:
        """The x0 estimate for ``x`` [B, *shape] at ``sigma`` [B], whose entries are equal.

        Raises:
            ArithmeticError: under ``check_finite``, x or sigma is not finite, with which a step size control would
                never come to an end.
        """
        value = float(sigma.reshape(-1)[0])
        if self._check_finite and not (math.isfinite(value) and bool(x.isfinite().all())):
            raise ArithmeticError(f"the sample is not finite at sigma = {value:g}")
        level = self._visited.get(value) or self._space.level(value)
        denoised = self._denoise(x * self._space.scale(level), level)
        for hook in (model_options or {}).get(POST_CFG, ()):
            estimates = {"denoised": denoised, "cond_denoised": denoised, "uncond_denoised": denoised}
            more = {"model": self.inner_model.inner_model, "sigma": sigma, "input": x, "model_options": model_options}
            denoised = hook(_Arguments(estimates | more, self._note))
        return denoised

    def _note(self, name: str) -> None:
        self.unconditional_was_read |= name == "uncond_denoised"


class _Arguments(dict[str, Any]):
    """Arguments of a hook; ``note`` is called with the name of each that is read."""

    def __init__(self, content: Mapping[str, Any], note: Callable[[str], None]) -> None:
        super().__init__(content)
        self._note = note

    def __getitem__(self, name: str) -> Any:
        self._note(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._note(name)
        return super().get(name, default)


class _ModelSampling:
    """The noise schedule as ComfyUI's ``model_sampling`` describes it."""

    def __init__(self, space: SigmaSpace, schedule: Schedule, like: Tensor) -> None:
        self._space = space
        self._schedule = schedule
        self._like = like
        table = [space.sigma(schedule.at_index(index)) for index in range(schedule.num_train_timesteps)]
        self.sigmas = torch.tensor(table, dtype=like.dtype, device=like.device)

    @property
    def sigma_min(self) -> Tensor:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> Tensor:
        return self.sigmas[-1]

    def timestep(self, sigma: Tensor) -> Tensor:
        """Timesteps of values of sigma, in their shape."""
        found = [self._space.level(value).timestep for value in sigma.reshape(-1).tolist()]
        return torch.tensor(found, dtype=self._like.dtype, device=self._like.device).reshape(sigma.shape)

    def sigma(self, timestep: Tensor) -> Tensor:
        """Values of sigma of timesteps, in their shape."""
        found = [self._space.sigma(self._schedule.at(value)) for value in timestep.reshape(-1).tolist()]
        return torch.tensor(found, dtype=self._like.dtype, device=self._like.device).reshape(timestep.shape)

    def percent_to_sigma(self, percent: float) -> float:
        """The sigma at which this part of the training timesteps, from the noisy end, is over."""
        if percent <= 0:
            return 1.0 if self._space.weight else 999999999.9
        index = (1 - percent) * (self._schedule.num_train_timesteps - 1)
        return self._space.sigma(self._schedule.at_index(index)) if percent < 1 else 0.0

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """A clean sample with noise up to ``sigma``."""
        return (1 - self._space.weight * sigma) * latent_image + sigma * noise

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        """The clean sample's part brought back to its own scale."""
        return latent / (1 - self._space.weight * sigma)


def _model_sampling(space: SigmaSpace, schedule: Schedule, like: Tensor) -> _ModelSampling:
    """The noise schedule, of ComfyUI's own class for its kind if ComfyUI is imported: samplers ask for ``CONST``."""
    kind = "CONST" if space.weight else "EPS"
    theirs = getattr(sys.modules.get("comfy.model_sampling"), kind, None)
    bases = (_ModelSampling, theirs) if isinstance(theirs, type) else (_ModelSampling,)
    return type("ModelSampling", bases, {})(space, schedule, like)
