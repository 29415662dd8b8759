import json
from pathlib import Path
from typing import Any

import diffusers
import pytest

from diffexp.components.checkpoints.scheduler_config import read_training
from diffexp.errors import InputError
from diffexp.plan.predictions import Clip, DynamicThreshold, Preconditioned, Prediction
from diffexp.plan.schedules import FlowSchedule, VESchedule, VPSchedule
from diffexp.plan.training import Training


def saved(scheduler: Any, folder: Path) -> Training:
    """Through the file, as a checkpoint has it."""
    scheduler.save_pretrained(folder)
    return read_training(json.loads((folder / "scheduler_config.json").read_text()), "checkpoint")


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.DDPMScheduler(),
        diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=400),
        diffusers.DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        diffusers.DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing"),
        diffusers.PNDMScheduler(trained_betas=[0.01, 0.02, 0.03]),
        diffusers.DPMSolverMultistepScheduler(),
    ],
)
def test_the_schedule_is_that_of_diffusers(scheduler: Any, tmp_path: Path) -> None:
    schedule = saved(scheduler, tmp_path).schedule
    assert isinstance(schedule, VPSchedule)
    assert schedule.alphas_cumprod == pytest.approx(scheduler.alphas_cumprod.double().tolist(), rel=1e-6, abs=1e-12)


def test_everything_else_a_config_says(tmp_path: Path) -> None:
    plain = saved(diffusers.DDPMScheduler(), tmp_path)
    assert (plain.prediction, plain.clip, plain.spacing) == (Prediction.EPSILON, Clip(1.0), "leading")
    training = saved(
        diffusers.DDIMScheduler(
            prediction_type="v_prediction", clip_sample_range=2.5, timestep_spacing="trailing", steps_offset=1
        ),
        tmp_path,
    )
    assert training.prediction is Prediction.V
    assert training.clip == Clip(2.5)
    assert (training.spacing, training.steps_offset) == ("trailing", 1)
    assert training.scheduler_config["_class_name"] == "DDIMScheduler"
    assert saved(diffusers.DDPMScheduler(clip_sample=False, prediction_type="sample"), tmp_path).clip is None
    thresholding = diffusers.DDPMScheduler(thresholding=True, sample_max_value=1.5, dynamic_thresholding_ratio=0.9)
    assert saved(thresholding, tmp_path).clip == DynamicThreshold(0.9, 1.5)


def test_defaults_are_those_of_the_class_named_in_the_config() -> None:
    """An old checkpoint lists few keys; diffusers fills in the rest per class, and so do we."""
    assert read_training({"_class_name": "DDIMScheduler"}, "x").clip == Clip(1.0)
    euler = read_training({"_class_name": "EulerDiscreteScheduler"}, "x")
    assert (euler.clip, euler.spacing) == (None, "linspace")
    assert read_training({}, "x").clip == Clip(1.0)
    assert read_training({"predict_epsilon": False}, "x").prediction is Prediction.SAMPLE


def test_unknown_keys_and_classes_are_no_obstacle() -> None:
    training = read_training({"_class_name": "MyScheduler", "beta_end": 0.01, "my_key": [1, 2]}, "x")
    assert training.schedule == VPSchedule.from_betas(beta_end=0.01)
    assert training.clip is None


def test_flow_matching_and_edm_checkpoints() -> None:
    training = read_training({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "x")
    assert training.schedule == FlowSchedule(shift=3.0)
    assert (training.prediction, training.spacing) == (Prediction.FLOW, "flow")
    training = read_training(
        {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "flow_shift": 5.0}, "x"
    )
    assert training.schedule == FlowSchedule(shift=5.0)
    training = read_training({"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction"}, "x")
    assert training.schedule == VESchedule(sigma_data=0.5)
    assert (training.prediction, training.spacing) == (Preconditioned(0.5, -1.0), "karras")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "ScoreSdeVeScheduler", "sigma_max": 1348.0}, "ScoreSdeVeScheduler has no betas"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}, "size of the image"),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}, "prediction_type=sample is not known"),
        ({"_class_name": "EDMEulerScheduler", "sigma_schedule": "linear"}, "sigma_schedule=linear is not known"),
        ({"prediction_type": "noise"}, "prediction_type=noise is not known; .*epsilon"),
        ({"timestep_spacing": "even"}, "timestep_spacing=even is not known; .*leading"),
        ({"beta_schedule": "quadratic"}, "beta_schedule=quadratic is not known"),
    ],
)
def test_what_is_not_supported_is_said_in_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_training(config, "checkpoint")
    assert "\n" not in str(caught.value)
