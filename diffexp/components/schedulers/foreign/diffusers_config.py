"""The config of a diffusers-style class for a model: how the model was trained, in the words of that class."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffexp.catalog.diffusers import TRAINING
from diffexp.catalog.quirks import quirks_of
from diffexp.errors import InputError
from diffexp.plan.levels import Schedule
from diffexp.plan.predictions import Clip, DynamicThreshold, Preconditioned
from diffexp.plan.schedules import FlowSchedule, VESchedule, VPSchedule
from diffexp.plan.training import Training

AUTO = "auto"
"""The levels that the model and the scheduler determine."""
UNIFORM = {name: {"timestep_spacing": name} for name in ("linspace", "leading", "trailing")}
SPELLED: tuple[tuple[type, Mapping[str, Mapping[str, Any]]], ...] = (
    (VPSchedule, {**UNIFORM, "karras": {"use_karras_sigmas": True}, "exponential": {"use_exponential_sigmas": True}}),
    (VESchedule, {"karras": {"sigma_schedule": "karras"}, "exponential": {"sigma_schedule": "exponential"}}),
    (FlowSchedule, {}),
)
"""The options of the classes that stand for our grids, for each kind of schedule."""

BETAS = ("beta_start", "beta_end", "beta_schedule", "trained_betas")


@dataclass(frozen=True)
class Accepted:
    """The keywords that a class accepts, by the method that accepts them."""

    config: frozenset[str]
    set: frozenset[str]
    step: frozenset[str]
    inert: frozenset[str]
    """Those that have no effect."""
    delegated: frozenset[str]
    """Entries of a config that it passes on to another class."""

    @classmethod
    def by(cls, scheduler: Any) -> "Accepted":
        """Read the signatures of a scheduler class."""
        return cls(
            _keywords(scheduler.__init__, ("kwargs",)),
            _keywords(scheduler.set_timesteps, ("num_inference_steps", "device", "timesteps", "sigmas", "kwargs")),
            _keywords(scheduler.step, ("model_output", "timestep", "sample")),
            frozenset(quirks_of(scheduler).inert),
            frozenset(quirks_of(scheduler).delegated),
        )

    @property
    def effective(self) -> frozenset[str]:
        """The entries of its config that have an effect."""
        return (self.config | self.delegated) - self.inert

    @property
    def all(self) -> frozenset[str]:
        return self.config | self.set | self.step


def _keywords(function: Any, without: tuple[str, ...]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters) - {"self", *without}


def spelling(accepted: Accepted, schedule: Schedule, grid: str) -> Mapping[str, Any] | None:
    """The options of a class that stand for a grid; None where it has none for it."""
    if grid == AUTO:
        return {}
    words = next((words.get(grid) for kind, words in SPELLED if isinstance(schedule, kind)), None)
    return words if words is not None and words.keys() <= accepted.effective else None


def config_of_training(cls: type, accepted: Accepted, training: Training) -> dict[str, Any]:
    """The checkpoint's own config, completed from the model's training instead of the defaults of the class.

    Raises:
        InputError: the class is for another kind of model.
    """
    # Only what it accepts: diffusers warns of every other entry.
    words = {*accepted.config, *accepted.delegated, "_class_name", "_use_default_values"}
    config = {name: value for name, value in training.scheduler_config.items() if name in words}
    # The class that wrote the config left these at its defaults; those of another class are another training.
    implied = [name for name in config.get("_use_default_values", ()) if name not in (*TRAINING, "clip_sample")]
    if "_use_default_values" in config:
        config["_use_default_values"] = implied
    known = {name: value for name, value in _training(cls, accepted, training).items() if name in words}
    if any(training.scheduler_config.get(name) is not None for name in BETAS):
        for name in ("trained_betas", "rescale_betas_zero_snr"):
            known.pop(name, None)
    if hasattr(cls, "from_config") and "beta_start" not in accepted.config:
        config.pop("trained_betas", None)  # its grid (IPNDM's), not the schedule of the training
        known.pop("trained_betas", None)
    return known | config


def _training(cls: type, accepted: Accepted, training: Training) -> dict[str, Any]:
    """The training, under every name that a class may have for an entry.

    Raises:
        InputError: the class is for another kind of model.
    """
    schedule = training.schedule
    common = {"num_train_timesteps": schedule.num_train_timesteps, **_clipping(training.clip)}
    names = accepted.config
    no_kind = not names & {*BETAS, "sigma_data", "shift", "flow_shift"} and not quirks_of(cls).for_flow
    if isinstance(schedule, VPSchedule) and (names & set(BETAS) or no_kind):
        return common | spelled_out(schedule) | {"prediction_type": training.prediction.value}
    if isinstance(schedule, VESchedule) and ("sigma_data" in names or no_kind):
        return common | _preconditioned(cls, schedule, training)
    if isinstance(schedule, FlowSchedule) and ("use_flow_sigmas" in names or not names & {*BETAS, "sigma_data"}):
        shifts = {"shift": schedule.shift, "flow_shift": schedule.shift}
        return common | shifts | {"use_flow_sigmas": True, "prediction_type": training.prediction.value}
    kinds = {VPSchedule: "variance-preserving", VESchedule: "variance-exploding (EDM)", FlowSchedule: "flow-matching"}
    kind = next((name for known, name in kinds.items() if isinstance(schedule, known)), type(schedule).__name__)
    raise InputError(f"{cls.__name__} is not for this kind of model, which is {kind}; --help says what a class is for")


def _clipping(clip: Clip | DynamicThreshold | None) -> dict[str, Any]:
    if isinstance(clip, Clip):
        return {"clip_sample": True, "clip_sample_range": clip.limit}
    if isinstance(clip, DynamicThreshold):
        threshold = {"dynamic_thresholding_ratio": clip.ratio, "sample_max_value": clip.max_value}
        return {"clip_sample": False, "thresholding": True, **threshold}
    return {"clip_sample": False}


def spelled_out(schedule: VPSchedule) -> dict[str, Any]:
    """The noise schedule as a list of betas, and what else would change it."""
    before = (1.0, *schedule.alphas_cumprod[:-1])
    return {
        "trained_betas": [1 - after / b for after, b in zip(schedule.alphas_cumprod, before)],
        "rescale_betas_zero_snr": schedule.alphas_cumprod[-1] == 0,
        "snr_shift_scale": 1.0,
        "set_alpha_to_one": schedule.final.sigma == 0,
    }


def _preconditioned(cls: type, schedule: VESchedule, training: Training) -> dict[str, Any]:
    prediction = training.prediction
    if schedule.sigma_data is None or not isinstance(prediction, Preconditioned):
        raise InputError(f"{cls.__name__} is for networks with the preconditioning of EDM, unlike this model's")
    return {
        "sigma_min": schedule.sigma_min,
        "sigma_max": schedule.sigma_max,
        "sigma_data": schedule.sigma_data,
        "prediction_type": "epsilon" if prediction.sign > 0 else "v_prediction",
    }
