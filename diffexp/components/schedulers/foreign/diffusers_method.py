"""diffusers-style scheduler classes (``set_timesteps``, ``scale_model_input``, ``step``) as methods."""

import copy
import functools
import inspect
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffexp.components.schedulers.foreign.diffusers_config import Accepted, config_of_training, spelling
from diffexp.errors import InputError, nearest
from diffexp.plan.levels import CLEAN, Level, Levels, Schedule
from diffexp.plan.method import Evaluate, Noise
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.training import Training

log = logging.getLogger(__name__)

REFUSALS = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    ImportError,
)
"""What scheduler classes raise for option values and step counts that they do not take."""


@dataclass
class ClassMethod:
    """A scheduler object bound to a number of steps, or to exactly these timesteps or sigmas."""

    scheduler: Any
    schedule: Schedule
    steps: int
    visit: Mapping[str, Any] = field(default_factory=dict)
    """``timesteps=`` or ``sigmas=`` for ``set_timesteps`` instead of the number of steps."""
    set_options: Mapping[str, Any] = field(default_factory=dict)
    """Further keywords of ``set_timesteps``."""
    step_options: Mapping[str, Any] = field(default_factory=dict)
    """Further keywords of ``step``."""
    span: tuple[int, int | None] = (0, None)
    """Which of its timesteps are visited."""

    def __post_init__(self) -> None:
        self._templates: dict[torch.dtype, Any] = {}
        prepared = self.prepared(torch.float32)
        self.name = type(self.scheduler).__name__
        self.nfe = len(prepared.timesteps[slice(*self.span)])
        self.start_std = float(getattr(prepared, "init_noise_sigma", 1.0))

    def __call__(self, evaluate: Evaluate, x: Tensor, noise: Noise) -> Tensor:
        scheduler = self.prepared(x.dtype)
        if self.span[0]:
            begin_at(scheduler, self.span[0])
        step = stepper(scheduler, self.step_options)
        for t in scheduler.timesteps[slice(*self.span)]:
            u = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = step(evaluate(x, u, self.level(float(t))), t, x)
        return x

    def prepared(self, dtype: torch.dtype) -> Any:
        """A fresh copy with its timesteps set, as the class sets them; its tables carry the precision of the run."""
        if dtype not in self._templates:
            scheduler = copy.deepcopy(self.scheduler)
            if self.visit:
                scheduler.set_timesteps(**self.visit, **self.set_options)
            else:
                scheduler.set_timesteps(self.steps, **self.set_options)
            _cast_tables(scheduler, dtype)
            integrate_once(scheduler)
            self._templates[dtype] = scheduler
        return copy.deepcopy(self._templates[dtype])

    @property
    def timesteps(self) -> Sequence[float]:
        return self.prepared(torch.float32).timesteps[slice(*self.span)].tolist()

    @property
    def ends(self) -> tuple[Level, Level]:
        begin, end = self.span
        return self._level_of_sample(begin), CLEAN if end is None else self._level_of_sample(end)

    def part(self, begin: int, end: int) -> "ClassMethod":
        order = getattr(self.scheduler, "order", 1)
        return replace(self, span=(begin * order, end * order if end < self.steps else None))

    def _level_of_sample(self, index: int) -> Level:
        """Of the sample, as the class scales it, before the timestep of that index."""
        scheduler = self.prepared(torch.float32)
        begin_at(scheduler, index)
        t, one = scheduler.timesteps[index], torch.ones(1)
        seen = scheduler.scale_model_input(one, t) if hasattr(scheduler, "scale_model_input") else one
        return self.level(float(t)).scaled(1 / float(seen))

    def level(self, timestep: float) -> Level:
        """What the network takes its input for, which its timestep alone tells it."""
        low, high = self.schedule.timestep_range
        level = self.schedule.at(min(max(timestep, low), high))
        return replace(level.scaled(self.schedule.input_scale(level)), timestep=timestep)


def begin_at(scheduler: Any, index: int) -> None:
    """Have its next step be that of this timestep, where it counts steps."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)


def stepper(scheduler: Any, options: Mapping[str, Any]) -> Callable[[Tensor, Any, Tensor], Tensor]:
    """(output, t, x) -> x of the next step."""
    if "old_pred_original_sample" in inspect.signature(scheduler.step).parameters:
        return _cogvideox_stepper(scheduler, options)
    return lambda output, t, x: _sample_of(scheduler.step(output, t, x, **options))


def _cogvideox_stepper(scheduler: Any, options: Mapping[str, Any]) -> Callable[[Tensor, Any, Tensor], Tensor]:
    """CogVideoXDPMScheduler leaves it to its pipeline to remember the last x0 estimate and timestep."""
    last_x0, last_t = None, None

    def step(output: Tensor, t: Any, x: Tensor) -> Tensor:
        nonlocal last_x0, last_t
        x, last_x0 = scheduler.step(output, last_x0, t, last_t, x, **options)
        last_t = t
        return x

    return step


def _sample_of(stepped: Any) -> Tensor:
    """What ``step`` returned: diffusers' output object, a tuple, or the sample itself."""
    if hasattr(stepped, "prev_sample"):
        return stepped.prev_sample
    return stepped[0] if isinstance(stepped, tuple) else stepped


def integrate_once(scheduler: Any) -> None:
    """LMSDiscreteScheduler integrates numerically in every step of every run; what comes out hangs on its sigmas alone.

    Copies of ``scheduler`` share what is remembered.
    """
    if hasattr(scheduler, "get_lms_coefficient"):
        scheduler.get_lms_coefficient = functools.cache(scheduler.get_lms_coefficient)


def _cast_tables(scheduler: Any, dtype: torch.dtype) -> None:
    # The tables keep their float32 values; only the arithmetic on them gains the precision. Timesteps are labels.
    if dtype == torch.float64:
        for name, value in vars(scheduler).items():
            if isinstance(value, Tensor) and value.dtype == torch.float32 and name != "timesteps":
                setattr(scheduler, name, value.double())


def build_class(
    cls: type, training: Training, steps: int, options: Mapping[str, Any], grid_name: str, levels: Levels | None
) -> ClassMethod:
    """A diffusers class with the checkpoint's own config under the options given.

    Args:
        options: config entries of the class, or keyword arguments of its ``set_timesteps`` (``mu``) and ``step``
            (``eta``, ``s_churn``).
        grid_name: one that the class has words for (see ``spelling``).
        levels: for any other grid the levels themselves, passed through ``set_timesteps``.

    Raises:
        InputError: the class has no such option, is for another kind of model, or cannot take the grid.
    """
    accepted = Accepted.by(cls)
    for name in options:
        if name not in accepted.all:
            raise InputError(f"{cls.__name__} has no option '{name}'{nearest(name, accepted.all)}")
    chosen = {name: value for name, value in options.items() if name in accepted.config}
    if levels is None:
        words = spelling(accepted, training.schedule, grid_name) or {}
    else:  # they are shifted already, where a flow model's are
        words = {name: 1.0 for name in ("shift", "flow_shift") if name in accepted.config}
    for name, value in words.items():
        if chosen.setdefault(name, value) != value:
            raise InputError(f"grid={grid_name} contradicts scheduler.{name}={chosen[name]}; choose one of them")
    with refusals(cls.__name__, steps):
        scheduler = _made(cls, config_of_training(cls, accepted, training), chosen, accepted)
        _check_schedule(scheduler, training.schedule)
        rest = {name: value for name, value in options.items() if name not in accepted.config}
        set_options = {name: value for name, value in rest.items() if name in accepted.set}
        step_options = {name: value for name, value in rest.items() if name not in accepted.set}
        visit = {} if levels is None else visiting(scheduler, levels, grid_name)
        method = ClassMethod(scheduler, training.schedule, steps, visit, set_options, step_options)
    if training.clip is not None and not {"clip_sample", "thresholding"} & accepted.effective:
        log.warning("%s cannot clip its x0 estimate, as the model's config asks: it runs without", cls.__name__)
    for name in sorted(accepted.inert & options.keys()):
        log.warning("%s takes %s and makes no use of it", cls.__name__, name)
    return method


@contextmanager
def refusals(name: str, steps: int) -> Iterator[None]:
    """One of ``REFUSALS`` becomes one line."""
    try:
        yield
    except InputError:
        raise
    except REFUSALS as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} refuses its options or steps={steps}: {told}") from error


def _made(cls: Any, config: Mapping[str, Any], chosen: Mapping[str, Any], accepted: Accepted) -> Any:
    if hasattr(cls, "from_config"):
        # Given as keywords, because from_config drops what the checkpoint's config marks as left at its default.
        return cls.from_config(config, **chosen)
    return cls(**{name: value for name, value in {**config, **chosen}.items() if name in accepted.config})


def _check_schedule(scheduler: Any, schedule: Schedule) -> None:
    """Some classes have a noise schedule of their own and make nothing of the model's."""
    own = getattr(scheduler, "alphas_cumprod", None)
    if isinstance(schedule, VPSchedule) and isinstance(own, Tensor):
        models = torch.tensor(schedule.alphas_cumprod, dtype=own.dtype)
        if own.shape != models.shape or float((own.cpu() - models).abs().max()) > 1e-4:
            raise InputError(f"{type(scheduler).__name__} has a noise schedule of its own, which is not the model's")


def visiting(scheduler: Any, levels: Levels, grid_name: str) -> dict[str, Any]:
    """The arguments of ``set_timesteps`` that make a scheduler visit exactly these levels.

    Raises:
        InputError: it takes no such list, or would make something else of it.
    """
    schedule = levels.schedule
    timesteps = [level.timestep for level in levels[:-1]]
    sigmas = [schedule.sigma_of(level) for level in levels]
    # Some want the clean end in the list, some an array.
    offers: list[dict[str, Any]] = [{"sigmas": form(s)} for s in (sigmas, sigmas[:-1]) for form in (list, np.array)]
    if all(t == int(t) for t in timesteps):
        offers.insert(0, {"timesteps": [int(t) for t in timesteps]})
    taken = inspect.signature(scheduler.set_timesteps).parameters
    for offer in (offer for offer in offers if offer.keys() <= taken.keys()):
        trial = copy.deepcopy(scheduler)
        try:
            trial.set_timesteps(**offer)
        except REFUSALS:
            continue
        if _visits(trial, timesteps, sigmas[:-1]):
            return offer
    name = type(scheduler).__name__
    raise InputError(
        f"{name} cannot visit exactly the levels of grid={grid_name}; use grid=auto or a scheduler without diffusers/"
    )


def _visits(prepared: Any, timesteps: Sequence[float], sigmas: Sequence[float]) -> bool:
    """Whether these are the levels that a scheduler goes through, apart from repeats (two evaluations a step)."""
    told = [float(t) for t, _ in groupby(prepared.timesteps.tolist())]
    table = getattr(prepared, "sigmas", None)
    if table is None or len(table) != len(prepared.timesteps) + 1:
        return told == list(timesteps)
    own = [float(sigma) for sigma, _ in groupby(table.tolist()[:-1])]
    # Where it knows the sigmas, what it tells the network may be rounded, or interpolated in its own way.
    slack = 1e-2 if prepared.timesteps.dtype.is_floating_point else 1.0
    return _close(told, timesteps, slack) and _close(own, sigmas, 0.0)


def _close(a: Sequence[float], b: Sequence[float], slack: float) -> bool:
    """Equal up to float32 and ``slack``."""
    return len(a) == len(b) and all(math.isclose(x, y, rel_tol=2e-5, abs_tol=slack) for x, y in zip(a, b))


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
        raise InputError(f"scheduler._target_={path} is not known{nearest(name, known)}")
    if not (isinstance(cls, type) and hasattr(cls, "set_timesteps") and hasattr(cls, "step")):
        raise InputError(f"scheduler._target_={path} is no scheduler class: it needs set_timesteps and step")
    return cls
