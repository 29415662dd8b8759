"""The same in the manner of diffusers: classes of their own, and some that are derived from those of diffusers."""

from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler
from torch import Tensor

from tests.certify.faulty.classes import SimpleDDIM


class OptionsDDIM(SimpleDDIM):
    """DDIM with prediction types and clipping, right."""

    def __init__(
        self,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        num_train_timesteps: int = 1000,
        prediction_type: str = "epsilon",
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
    ) -> None:
        super().__init__(beta_start, beta_end, num_train_timesteps)
        self.prediction_type, self.limit = prediction_type, clip_sample_range if clip_sample else None

    def place(self, timestep: Any) -> int:
        return int((self.timesteps == timestep).nonzero()[0])

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor) -> tuple[Tensor]:
        index, last = self.place(timestep), self.place(timestep) + 1 == len(self.timesteps)
        levels = [self.alphas_cumprod[self.trained(t)].double() for t in self.timesteps[index : index + 2]]
        alpha, sigma = levels[0].sqrt(), (1 - levels[0]).sqrt()
        there = torch.ones((), dtype=torch.float64) if last else levels[1]
        if self.prediction_type == "sample":
            x0 = model_output
        elif self.prediction_type == "v_prediction":
            x0 = alpha * sample - sigma * model_output
        else:
            x0 = (sample - sigma * model_output) / alpha
        x0 = self.clipped(self.factor(sample) * x0, last)
        return (there.sqrt() * x0 + (1 - there).sqrt() / sigma * (sample - alpha * x0),)

    def trained(self, timestep: Any) -> int:
        return int(timestep)

    def factor(self, sample: Tensor) -> float:
        return 1.0

    def clipped(self, x0: Tensor, last: bool) -> Tensor:
        return x0 if self.limit is None else x0.clamp(-self.limit, self.limit)


class HalfATimestepOff(OptionsDDIM):
    def set_timesteps(self, num_inference_steps: int) -> None:
        self.timesteps = torch.linspace(999, 1, num_inference_steps).round() - 0.5

    def trained(self, timestep: Any) -> int:
        return int(timestep + 0.5)


class OneTimestepOff(HalfATimestepOff):
    def set_timesteps(self, num_inference_steps: int) -> None:
        self.timesteps = torch.linspace(999, 1, num_inference_steps).round().long() - 1

    def trained(self, timestep: Any) -> int:
        return int(timestep) + 1


class SmallForSample(OptionsDDIM):
    def factor(self, sample: Tensor) -> float:
        return 0.98 if self.prediction_type == "sample" else 1.0


class SmallForV(OptionsDDIM):
    def factor(self, sample: Tensor) -> float:
        return 0.98 if self.prediction_type == "v_prediction" else 1.0


class NeverClips(OptionsDDIM):
    def clipped(self, x0: Tensor, last: bool) -> Tensor:
        return x0


class ClipsAtOne(OptionsDDIM):
    def clipped(self, x0: Tensor, last: bool) -> Tensor:
        return x0 if self.limit is None else x0.clamp(-1, 1)


class ClipsOnlyAtTheEnd(OptionsDDIM):
    def clipped(self, x0: Tensor, last: bool) -> Tensor:
        return super().clipped(x0, last) if last else x0


class SmallAtOddSteps(OptionsDDIM):
    def factor(self, sample: Tensor) -> float:
        return 0.98 if len(self.timesteps) % 2 and len(self.timesteps) > 9 else 1.0


class SmallAbove20Steps(OptionsDDIM):
    def factor(self, sample: Tensor) -> float:
        return 0.98 if len(self.timesteps) > 20 else 1.0


class SmallInBatches(OptionsDDIM):
    def factor(self, sample: Tensor) -> float:
        return 0.98 if len(sample) > 4 else 1.0


class SmallOnLargeImages(OptionsDDIM):
    def factor(self, sample: Tensor) -> float:
        return 0.98 if sample[0].numel() > 4096 else 1.0


class HalfATimestepOffEuler(EulerDiscreteScheduler):
    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)
        self.timesteps = self.timesteps - 0.5


class HalfAStepOffHeun(HeunDiscreteScheduler):
    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)
        self.timesteps = self.timesteps - (self.timesteps[0] - self.timesteps[-1]) / (2 * len(self.timesteps))


class SmallOnFlowDPM(DPMSolverMultistepScheduler):
    def convert_model_output(self, *args: Any, **kwargs: Any) -> Tensor:
        x0 = super().convert_model_output(*args, **kwargs)
        return 0.98 * x0 if self.config["use_flow_sigmas"] else x0


class SmallForSampleDPM(DPMSolverMultistepScheduler):
    def convert_model_output(self, *args: Any, **kwargs: Any) -> Tensor:
        x0 = super().convert_model_output(*args, **kwargs)
        return 0.98 * x0 if self.config["prediction_type"] == "sample" else x0


class FirstOrderAtOddSteps(DPMSolverMultistepScheduler):
    def multistep_dpm_solver_second_order_update(self, outputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        if len(self.timesteps) % 2 and len(self.timesteps) > 9:
            return self.dpm_solver_first_order_update(outputs[-1], *args, **kwargs)
        return super().multistep_dpm_solver_second_order_update(outputs, *args, **kwargs)


class EqualSteps(DPMSolverMultistepScheduler):
    """r = 1."""

    def multistep_dpm_solver_second_order_update(self, outputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        extrapolated = 1.5 * outputs[-1] - 0.5 * outputs[-2]
        return self.dpm_solver_first_order_update(extrapolated, *args, **kwargs)


GETS = r"gives the network timestep .* where the noise in its input is that of timestep"
FAULTY = {
    HalfATimestepOff: ("told", GETS),
    OneTimestepOff: ("told", GETS),
    HalfATimestepOffEuler: ("told", GETS),
    HalfAStepOffHeun: ("told", GETS),
    SmallForSample: ("predictions", r"networks that predict sample .* right with epsilon, v_prediction"),
    SmallForV: ("predictions", r"networks that predict v_prediction .* right with epsilon, sample"),
    SmallForSampleDPM: ("predictions", r"networks that predict sample .* right with epsilon, v_prediction"),
    NeverClips: ("clipping", r"does not clip"),
    ClipsAtOne: ("clipping", r"wrong where the model clips"),
    ClipsOnlyAtTheEnd: ("clipping", r"does not clip the x0 estimate of evaluation 1"),
    SmallAtOddSteps: ("step_counts", r"wrong with odd numbers of steps above 9"),
    SmallAbove20Steps: ("step_counts", r"wrong with numbers of steps above 20"),
    FirstOrderAtOddSteps: ("step_counts", r"its error jumps with"),
    SmallInBatches: ("sizes", r"does something else with batches of 5 .* right with batches of 4"),
    SmallOnLargeImages: ("sizes", r"does something else with samples of shape"),
    SmallOnFlowDPM: ("point", r"on flow levels: .* updates are wrong"),
    EqualSteps: ("grids", r"converges with order (0|1)\.\d+ on steps of unlike lengths, with 2 on equal steps"),
}
