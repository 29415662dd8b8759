"""The same in the manner of diffusers: a class with ``set_timesteps``, ``scale_model_input`` and ``step``."""

from typing import Any

import torch
from torch import Tensor


class SimpleDDIM:
    """DDIM without options, right."""

    last_factor = 1.0
    shared = False

    def __init__(self, beta_start: float = 1e-4, beta_end: float = 0.02, num_train_timesteps: int = 1000) -> None:
        betas = torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float32)
        self.alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        self.init_noise_sigma = 1.0
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)

    def set_timesteps(self, num_inference_steps: int) -> None:
        self.timesteps = torch.linspace(999, 0, num_inference_steps).round().long()

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        return sample

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor) -> tuple[Tensor]:
        index = int((self.timesteps == timestep).nonzero()[0])
        here = self.alphas_cumprod[timestep].double()
        last = index + 1 == len(self.timesteps)
        there = torch.ones((), dtype=torch.float64) if last else self.alphas_cumprod[self.timesteps[index + 1]].double()
        x0 = (sample - (1 - here).sqrt() * model_output) / here.sqrt()
        factor = self.last_factor if last else 1.0
        return (self.finish(factor * there.sqrt() * x0 + (1 - there).sqrt() * model_output, there, last),)

    def finish(self, x: Tensor, there: Tensor, last: bool) -> Tensor:
        return x


class WrongLastStep(SimpleDDIM):
    """Ends at 0.97 of x0."""

    last_factor = 0.97


class NanLastStep(SimpleDDIM):
    """0 / 0 at the clean end."""

    def finish(self, x: Tensor, there: Tensor, last: bool) -> Tensor:
        return x * ((1 - there) / (1 - there))


class SharedNoise(SimpleDDIM):
    """A little noise, the same for the whole batch."""

    def finish(self, x: Tensor, there: Tensor, last: bool) -> Tensor:
        return x if last else x + 0.01 * torch.randn(1, *x.shape[1:], dtype=x.dtype)


class EditsItsSample(SimpleDDIM):
    """Writes into the sample it is given."""

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor) -> tuple[Tensor]:
        return (sample.copy_(super().step(model_output, timestep, sample)[0]),)


class StaleState(SimpleDDIM):
    """Remembers the last output and does not forget it in ``set_timesteps``."""

    def __init__(self, beta_start: float = 1e-4, beta_end: float = 0.02, num_train_timesteps: int = 1000) -> None:
        super().__init__(beta_start, beta_end, num_train_timesteps)
        self.last: Tensor | None = None

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor) -> tuple[Tensor]:
        smooth = model_output if self.last is None else 0.9 * model_output + 0.1 * self.last
        self.last = model_output
        return super().step(smooth, timestep, sample)


FAULTY = {
    WrongLastStep: ("point", r"the last step, from sigma .* a wrong coefficient"),
    NanLastStep: ("ends", r"the last step, to sigma = 0, gives nan"),
    SharedNoise: ("batch", r"the noise is shared over the batch"),
    EditsItsSample: ("inputs", r"edits its start sample in place"),
    StaleState: ("reuse", r"keeps state between runs"),
}
