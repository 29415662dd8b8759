"""What a checkpoint's scheduler config says about the training of its network."""

import inspect
from dataclasses import dataclass
from typing import Any

import diffusers

from diffexp.errors import InputError
from diffexp.levels import Schedule, VPSchedule
from diffexp.predictions import Clip, DynamicThreshold, Prediction

_BETA_KEYS = ("beta_schedule", "beta_start", "beta_end", "trained_betas")
_SCHEDULE_KEYS = (*_BETA_KEYS, "num_train_timesteps", "rescale_betas_zero_snr", "set_alpha_to_one")
_FLOW_KEYS = ("use_flow_sigmas", "use_flow_sigma")
_SPACINGS = ("linspace", "leading", "trailing")


@dataclass(frozen=True)
class Training:
    """What a checkpoint's scheduler config says about how its network was trained and wants to be sampled."""

    schedule: Schedule
    prediction: Prediction
    clip: Clip | DynamicThreshold | None
    spacing: str
    steps_offset: int
    config: dict[str, Any]
    """The config as it was found."""


def read_training(config: dict[str, Any], source: str) -> Training:
    """Understand a scheduler_config.json the way the diffusers class that it names does, defaults included.

    Unknown keys are ignored. An empty config has the defaults of DDPMScheduler.

    Raises:
        InputError: the noise schedule, prediction type or spacing is of a kind that diffexp does not know.
    """
    name = config.get("_class_name", "DDPMScheduler")
    full = _defaults(name) | {key: value for key, value in config.items() if not key.startswith("_")}
    flow = [key for key in _FLOW_KEYS if full.get(key)]
    if flow or not any(full.get(key) is not None for key in _BETA_KEYS):
        why = f"{flow[0]}=true" if flow else "no betas"
        raise InputError(f"{source}: {name} has {why}; diffexp knows variance-preserving schedules given by betas")
    schedule = VPSchedule.from_betas(**{key: full[key] for key in _SCHEDULE_KEYS if full.get(key) is not None})
    return Training(
        schedule=schedule,
        prediction=_prediction(full, source),
        clip=_clip(full),
        spacing=_spacing(full, source),
        steps_offset=int(full.get("steps_offset") or 0),
        config=config,
    )


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
    known = [kind.value for kind in Prediction]
    if name not in known:
        raise InputError(f"{source}: prediction_type={name} is not known; it should be one of {', '.join(known)}")
    return Prediction(name)


def _clip(full: dict[str, Any]) -> Clip | DynamicThreshold | None:
    if full.get("thresholding"):
        return DynamicThreshold(full.get("dynamic_thresholding_ratio", 0.995), full.get("sample_max_value", 1.0))
    return Clip(float(full.get("clip_sample_range", 1.0))) if full.get("clip_sample") else None


def _spacing(full: dict[str, Any], source: str) -> str:
    name = full.get("timestep_spacing", "leading")
    if name not in _SPACINGS:
        raise InputError(f"{source}: timestep_spacing={name} is not known; it should be one of {', '.join(_SPACINGS)}")
    return name
