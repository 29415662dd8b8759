"""A class of diffusers becomes a scheduler object, and a method, for a model."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from diffexp.catalog.diffusers_keys import SPACING
from diffexp.components.schedulers.foreign.diffusers_config import (
    AUTO,
    Accepted,
    config_of_training,
    spelled_out,
    spelling,
)
from diffexp.components.schedulers.foreign.diffusers_levels import (
    REFUSALS,
    pipeline_keywords,
    set_timesteps_arguments,
)
from diffexp.components.schedulers.foreign.diffusers_method import ClassMethod
from diffexp.errors import InputError, nearest
from diffexp.plan.levels import Levels
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.training import Training

log = logging.getLogger(__name__)


def build_class(
    cls: type, training: Training, steps: int, options: Mapping[str, Any], grid_name: str, levels: Levels | None
) -> ClassMethod:
    """Build a diffusers class from the checkpoint's own config and the options given, which come first.

    Args:
        options: config entries of the class, or keyword arguments of its ``set_timesteps`` (``mu``) and ``step``
            (``eta``, ``s_churn``).
        grid_name: one that the class has words for (see ``spelling``).
        levels: for any other grid the levels themselves, for ``set_timesteps``.

    Raises:
        InputError: the class has no such option, is for another kind of model, or cannot take the grid.
    """
    accepted = Accepted.by(cls)
    for name in options:
        if name not in accepted.all:
            raise InputError(f"{cls.__name__} has no option '{name}'{nearest(name, accepted.all)}")
    chosen = {name: value for name, value in options.items() if name in accepted.config}
    auto = levels is None and grid_name == AUTO
    if levels is None:
        words = spelling(accepted, training.schedule, grid_name) or {}
    else:  # those of a flow model are shifted already
        words = {name: 1.0 for name in ("shift", "flow_shift") if name in accepted.config}
    for name, value in words.items():
        if chosen.setdefault(name, value) != value:
            raise InputError(f"grid={grid_name} contradicts scheduler.{name}={chosen[name]}; choose one of them")
    with refusals(cls.__name__, steps):
        scheduler = made_for(training, cls, accepted, chosen, auto)
        rest = {name: value for name, value in options.items() if name not in accepted.config}
        set_options = {name: value for name, value in rest.items() if name in accepted.set}
        step_options = {name: value for name, value in rest.items() if name not in accepted.set}
        if auto:
            visit, given = pipeline_keywords(scheduler, training, steps)
            set_options = given | set_options
        else:
            visit = {} if levels is None else set_timesteps_arguments(scheduler, levels, grid_name)
        method = ClassMethod(scheduler, training.schedule, steps, visit, set_options, step_options)
    if training.clip is not None and not {"clip_sample", "thresholding"} & accepted.effective:
        log.warning("%s cannot clip its x0 estimate as the model's config requires; it runs without", cls.__name__)
    for name in sorted(accepted.inert & options.keys()):
        log.warning("%s accepts %s and ignores it", cls.__name__, name)
    return method


@contextmanager
def refusals(name: str, steps: int) -> Iterator[None]:
    """Turn one of ``REFUSALS`` into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    except REFUSALS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} refuses its options or steps={steps}: {reason}") from error


def made_for(
    training: Training, cls: Any, accepted: Accepted, chosen: Mapping[str, Any] | None = None, auto: bool = True
) -> Any:
    """A scheduler object of a class for a model, with the checkpoint's config.

    Args:
        chosen: options that go before the config.
        auto: whether the levels are left to the config; a grid that is chosen goes before it.

    Raises:
        InputError: the class is for another kind of model, or has a noise schedule of its own.
    """
    config = config_of_training(cls, accepted, training)
    if not auto:
        config |= {name: next(iter(plain), None) for name, plain in SPACING.items() if name in config}
    scheduler, schedule = _made(cls, config, chosen or {}, accepted), training.schedule
    if isinstance(schedule, VPSchedule) and not _has_table(scheduler, schedule):
        if {"beta_start", "trained_betas"} <= accepted.config:  # the same words mean other betas to this class
            spelled = {name: value for name, value in spelled_out(schedule).items() if name in accepted.config}
            scheduler = _made(cls, config | spelled, chosen or {}, accepted)
        if not _has_table(scheduler, schedule):
            raise InputError(f"{cls.__name__} has a noise schedule of its own, which is not the model's")
    return scheduler


def _made(cls: Any, config: Mapping[str, Any], chosen: Mapping[str, Any], accepted: Accepted) -> Any:
    if hasattr(cls, "from_config"):
        # Given as keywords, because from_config drops what the checkpoint's config marks as left at its default.
        return cls.from_config(config, **chosen)
    return cls(**{name: value for name, value in {**config, **chosen}.items() if name in accepted.config})


def _has_table(scheduler: Any, schedule: VPSchedule) -> bool:
    """Whether a scheduler has the model's table of alphas, or none."""
    own = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(own, Tensor):
        return True
    models = torch.tensor(schedule.alphas_cumprod, dtype=own.dtype)
    return own.shape == models.shape and float((own.cpu() - models).abs().max()) <= 1e-4


def find_class(path: str) -> type:
    """Import the scheduler class ``diffusers.X`` or ``package.module.X``.

    Raises:
        InputError: there is no such class, or it is no scheduler.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = __import__(module_name or "diffusers", fromlist=[name])
    except ImportError:
        raise InputError(f"scheduler._target_={path}: the module {module_name} cannot be imported") from None
    cls = getattr(module, name, None)
    if cls is None:
        known = [n for n in dir(module) if n.endswith("Scheduler")]
        raise InputError(f"scheduler._target_={path} is not known{nearest(name, known)}")
    if not (isinstance(cls, type) and hasattr(cls, "set_timesteps") and hasattr(cls, "step")):
        raise InputError(f"scheduler._target_={path} is not a scheduler class: it needs set_timesteps and step")
    return cls
