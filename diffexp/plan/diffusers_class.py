"""diffusers-style scheduler classes (``set_timesteps``, ``scale_model_input``, ``step``) as methods."""

import copy
import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from diffexp.errors import InputError
from diffexp.levels import Level, Levels, Schedule
from diffexp.plan.method import Evaluate, Noise, Spec
from diffexp.schedules import VPSchedule

SPACING_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "auto": {},
    "linspace": {"timestep_spacing": "linspace"},
    "leading": {"timestep_spacing": "leading"},
    "trailing": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
}
"""How the classes themselves spell our grids."""


@dataclass
class ClassMethod:
    """A scheduler object bound to a number of steps, or to exactly these timesteps or sigmas."""

    scheduler: Any
    schedule: Schedule
    steps: int
    visit: Mapping[str, list[float]] = field(default_factory=dict)
    """``timesteps=`` or ``sigmas=`` for ``set_timesteps`` instead of the number of steps."""
    step_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        prepared = self._prepared(torch.float32)
        self.name = type(self.scheduler).__name__
        self.nfe = len(prepared.timesteps)
        self.start_std = float(getattr(prepared, "init_noise_sigma", 1.0))

    def __call__(self, evaluate: Evaluate, x: Tensor, noise: Noise) -> Tensor:
        scheduler = self._prepared(x.dtype)
        for t in scheduler.timesteps:
            u = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            output = evaluate(x, u, self._level(float(t)))
            x = _sample_of(scheduler.step(output, t, x, **self.step_options))
        return x

    def _prepared(self, dtype: torch.dtype) -> Any:
        """A fresh copy with its timesteps set; its tables carry the precision of the run."""
        scheduler = copy.deepcopy(self.scheduler)
        _cast_tables(scheduler, dtype)
        if self.visit:
            scheduler.set_timesteps(**self.visit)
        else:
            scheduler.set_timesteps(self.steps)
        _cast_tables(scheduler, dtype)
        return scheduler

    def _level(self, timestep: float) -> Level:
        inside = min(max(timestep, 0.0), self.schedule.num_train_timesteps - 1)
        return replace(self.schedule.at(inside), timestep=timestep)


def _sample_of(stepped: Any) -> Tensor:
    """What ``step`` returned: diffusers' output object, a tuple, or the sample itself."""
    if hasattr(stepped, "prev_sample"):
        return stepped.prev_sample
    return stepped[0] if isinstance(stepped, tuple) else stepped


def _cast_tables(scheduler: Any, dtype: torch.dtype) -> None:
    # The tables keep their float32 values; only the arithmetic on them gains the precision. Timesteps are labels.
    if dtype == torch.float64:
        for name, value in vars(scheduler).items():
            if isinstance(value, Tensor) and value.dtype == torch.float32 and name != "timesteps":
                setattr(scheduler, name, value.double())


def build_class(
    cls: type, spec: Spec, steps: int, options: Mapping[str, Any], grid_name: str, levels: Levels | None
) -> ClassMethod:
    """A diffusers class with the checkpoint's own config under the options given.

    Args:
        options: config entries of the class, or keyword arguments of its ``step`` (``eta``, ``s_churn``).
        grid_name: one that the class can spell itself (see ``SPACING_OPTIONS``).
        levels: for any other grid the levels themselves, passed through ``set_timesteps``.

    Raises:
        InputError: the class has no such option, or cannot take the grid.
    """
    config_names = set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}
    step_names = set(inspect.signature(cls.step).parameters) - {"self", "model_output", "timestep", "sample"}  # pyright: ignore
    for name in options:
        if name not in config_names | step_names:
            raise InputError(_unknown_option(cls, name, sorted(config_names | step_names)))
    config = dict(spec.scheduler_config or _as_config(spec))
    chosen = {k: v for k, v in options.items() if k in config_names}
    visit: dict[str, list[float]] = {}
    if levels is not None:
        visit = _visit(cls, levels)
    else:
        spelled = SPACING_OPTIONS[grid_name]
        for name in spelled:
            if name not in config_names:
                raise InputError(f"{cls.__name__} cannot take grid={grid_name}: it has no option {name}")
        chosen |= spelled
    if hasattr(cls, "from_config") and "beta_start" not in config_names:
        config.pop("trained_betas", None)  # IPNDM takes these for its grid; it has a schedule of its own
    step_options = {k: v for k, v in options.items() if k not in config_names}
    try:
        if hasattr(cls, "from_config"):
            # Given as keywords, because from_config drops what the checkpoint's config marks as left at its default.
            scheduler = cls.from_config(config, **chosen)
        else:
            known = _as_config(spec) | config | chosen  # the betas in every form, whichever the class takes
            scheduler = cls(**{k: v for k, v in known.items() if k in config_names})
        return ClassMethod(scheduler, spec.schedule, steps, visit, step_options)
    except InputError:
        raise
    # What scheduler classes raise for option values and step counts that they do not take.
    except (ValueError, TypeError, NotImplementedError, AssertionError, IndexError) as error:
        raise InputError(f"{cls.__name__} refuses its options or steps={steps}: {_one_line(error)}") from error


def _visit(cls: type, levels: Levels) -> dict[str, list[float]]:
    accepted = inspect.signature(cls.set_timesteps).parameters  # pyright: ignore[reportAttributeAccessIssue]
    timesteps = [level.timestep for level in levels[:-1]]
    whole = all(t == int(t) for t in timesteps)
    if "sigmas" in accepted and not (whole and "timesteps" in accepted):
        return {"sigmas": [level.ratio for level in levels]}
    if "timesteps" in accepted and whole:
        return {"timesteps": [int(t) for t in timesteps]}
    raise InputError(
        f"{cls.__name__} takes no list of levels; use grid=linspace, leading or trailing, or a native scheduler"
    )


def _as_config(spec: Spec) -> dict[str, Any]:
    schedule = spec.schedule
    if not isinstance(schedule, VPSchedule):
        raise InputError("a diffusers scheduler class needs a model with a discrete variance-preserving schedule")
    before = (1.0, *schedule.alphas_cumprod[:-1])
    betas = [1 - after / b for after, b in zip(schedule.alphas_cumprod, before)]
    return {
        "num_train_timesteps": schedule.num_train_timesteps,
        "trained_betas": betas,
        "prediction_type": spec.prediction.value,
        "clip_sample": spec.clip is not None,
    }


def find_class(path: str) -> type:
    """``diffusers.X`` or ``package.module.X``.

    Raises:
        InputError: no such class, or it is no scheduler.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = __import__(module_name or "diffusers", fromlist=[name])
    except ImportError:
        raise InputError(f"scheduler._target_={path}: the module {module_name} cannot be imported") from None
    cls = getattr(module, name, None)
    if cls is None:
        known = [n for n in dir(module) if n.endswith("Scheduler")]
        raise InputError(f"scheduler._target_={path} is not known{_did_you_mean(name, known)}")
    if not (isinstance(cls, type) and hasattr(cls, "set_timesteps") and hasattr(cls, "step")):
        raise InputError(f"scheduler._target_={path} is no scheduler class: it needs set_timesteps and step")
    return cls


def _unknown_option(cls: type, name: str, known: Sequence[str]) -> str:
    return f"{cls.__name__} has no option '{name}'{_did_you_mean(name, known)}"


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
