"""The training of a pipeline's network: by the config of its scheduler, with the levels that its call makes of it."""

import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from diffexp.components.checkpoints.scheduler_config import read_training
from diffexp.errors import InputError
from diffexp.plan.schedules import FlowSchedule, VPSchedule
from diffexp.plan.training import Training

LEVELS = ("mu", "sigmas", "timesteps")
"""Keywords of ``set_timesteps`` that decide levels."""


def by_config(scheduler: Any, source: str) -> Training:
    """The training by the config of a pipeline's scheduler, as in the checkpoint's file.

    Raises:
        InputError: it is of a kind that diffexp does not know.
    """
    config = {key: value for key, value in scheduler.config.items() if key != "_use_default_values"}
    for key in scheduler.config.get("_use_default_values", []):
        config.pop(key, None)
    config["_class_name"] = type(scheduler).__name__
    config.pop("invert_sigmas", None)  # the model turns its time round
    dynamic = {"use_dynamic_shifting": True} if config.get("use_dynamic_shifting") else {}
    training = read_training(config | {"use_dynamic_shifting": False}, source)
    return replace(training, scheduler_config={**training.scheduler_config, **dynamic})


def of_pipeline(
    training: Training, prepared: Callable[[int, Mapping[str, Any]], tuple[Mapping[str, Any], Any]]
) -> Training:
    """A training with the levels that the pipeline's call makes.

    Args:
        training: by the config alone.
        prepared: a method, (steps, a scheduler's config) -> (keywords of ``set_timesteps`` in a call, ...).
    """
    if isinstance(training.schedule, VPSchedule):  # whose pipelines leave them to the scheduler
        return training

    method = weakref.WeakMethod(prepared)  # plans have the training, and outlive the model

    def keywords(steps: int, config: Mapping[str, Any]) -> Mapping[str, Any]:
        if (call := method()) is None:
            raise InputError("the pipeline of this plan is no longer in memory: run it again")
        found = call(steps, config)[0]
        return {key: _plain(found[key]) for key in LEVELS if found.get(key) is not None}

    usual = keywords(2, {})
    if not usual:
        return training
    schedule, config, mu = training.schedule, training.scheduler_config, usual.get("mu")
    # Some pipelines pass it to schedulers that do not shift by it.
    if isinstance(schedule, FlowSchedule) and mu is not None and config.get("use_dynamic_shifting"):
        is_linear = config.get("time_shift_type") == "linear"
        schedule = replace(schedule, shift=mu if is_linear else math.exp(mu))
    return replace(training, schedule=schedule, set_timesteps=keywords)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
