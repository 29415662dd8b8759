"""Training of a checkpoint's network, read from its scheduler config."""

import inspect
from dataclasses import replace
from typing import Any

import diffusers

from diffexp.errors import InputError
from diffexp.plan.predictions import Clip, DynamicThreshold, Preconditioned, Prediction
from diffexp.plan.schedules import FlowSchedule, VESchedule, VPSchedule
from diffexp.plan.training import Training

_BETA_KEYS = ("beta_schedule", "beta_start", "beta_end", "trained_betas")
_SCHEDULE_KEYS = (*_BETA_KEYS, "num_train_timesteps", "rescale_betas_zero_snr", "snr_shift_scale", "set_alpha_to_one")
_FLOW_KEYS = ("use_flow_sigmas", "use_flow_sigma")
_SPACINGS = ("linspace", "leading", "trailing")
_SIGMA_SPACINGS = ("karras", "exponential")


def read_training(config: dict[str, Any], source: str) -> Training:
    """Understand a scheduler_config.json the way the diffusers class that it names does, defaults included.

    Unknown keys are ignored. An empty config has the defaults of DDPMScheduler.

    Raises:
        InputError: the noise schedule, prediction type or spacing is of a kind that diffexp does not know.
    """
    if str(variance := config.get("variance_type")).startswith("learned"):
        rest = {key: value for key, value in config.items() if key != "variance_type"}
        return replace(read_training(rest, source), learned_variance=str(variance))
    name = config.get("_class_name", "DDPMScheduler")
    full = _defaults(name) | {key: value for key, value in config.items() if not key.startswith("_")}
    if full.get("use_dynamic_shifting"):
        raise InputError(f"{source}: {name} shifts its grid by the size of the image, which only its pipeline knows")
    if name.startswith("FlowMatch") or any(full.get(key) for key in _FLOW_KEYS):
        return _flow_training(full, config)
    if full.get("sigma_data") is not None and full.get("sigma_min") is not None:
        return _edm_training(full, config, source)
    if not any(full.get(key) is not None for key in _BETA_KEYS):
        raise InputError(
            f"{source}: {name} has no betas, no sigma_data and no flow; diffexp does not know its schedule"
        )
    schedule = VPSchedule.from_betas(**{key: full[key] for key in _SCHEDULE_KEYS if full.get(key) is not None})
    return Training(
        schedule=schedule,
        prediction=_prediction(full, source),
        clip=_clip(full),
        spacing=_one_of(_SPACINGS, full.get("timestep_spacing", "leading"), "timestep_spacing", source),
        steps_offset=int(full.get("steps_offset") or 0),
        scheduler_config=config,
    )


def _flow_training(full: dict[str, Any], config: dict[str, Any]) -> Training:
    shift = full.get("shift") or full.get("flow_shift") or 1.0
    schedule = FlowSchedule(float(shift), int(full.get("num_train_timesteps") or 1000))
    return Training(schedule, Prediction.FLOW, _clip(full), config, "flow")


def _edm_training(full: dict[str, Any], config: dict[str, Any], source: str) -> Training:
    data = float(full["sigma_data"])
    schedule = VESchedule(float(full["sigma_min"]), float(full["sigma_max"]), data, int(full["num_train_timesteps"]))
    sign = {"epsilon": 1.0, "v_prediction": -1.0}
    prediction = _one_of(tuple(sign), full.get("prediction_type", "epsilon"), "prediction_type", source)
    spacing = _one_of(_SIGMA_SPACINGS, full.get("sigma_schedule", "karras"), "sigma_schedule", source)
    return Training(schedule, Preconditioned(data, sign[prediction]), _clip(full), config, spacing)


def _defaults(name: str) -> dict[str, Any]:
    scheduler = getattr(diffusers, name, None)
    if not inspect.isclass(scheduler):
        return {}  # somebody's own class: what its config says is all there is
    parameters = inspect.signature(scheduler.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _prediction(full: dict[str, Any], source: str) -> Prediction:
    name = full.get("prediction_type", "epsilon")
    if full.get("predict_epsilon") is False:  # how the first diffusers releases said it
        name = "sample"
    return Prediction(_one_of(tuple(kind.value for kind in Prediction), name, "prediction_type", source))


def _clip(full: dict[str, Any]) -> Clip | DynamicThreshold | None:
    if full.get("thresholding"):
        return DynamicThreshold(full.get("dynamic_thresholding_ratio", 0.995), full.get("sample_max_value", 1.0))
    return Clip(float(full.get("clip_sample_range", 1.0))) if full.get("clip_sample") else None


def _one_of(known: tuple[str, ...], value: Any, key: str, source: str) -> str:
    if value not in known:
        raise InputError(f"{source}: {key}={value} is not known; it should be one of {', '.join(known)}")
    return value
