"""The meaning of ``grid=auto`` where a checkpoint's scheduler config says more about levels than our grids can."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from diffexp.catalog.diffusers_keys import KNOWN, LEVELS, SOLVER, spoken
from diffexp.components.schedulers.foreign.diffusers_build import made_for, refusals
from diffexp.components.schedulers.foreign.diffusers_config import Accepted, config_of_training
from diffexp.components.schedulers.foreign.diffusers_levels import pipeline_keywords
from diffexp.components.schedulers.foreign.diffusers_method import scaled_input
from diffexp.errors import InputError
from diffexp.plan.levels import CLEAN, Level, Levels, Schedule
from diffexp.plan.schedules import FlowSchedule
from diffexp.plan.training import Training


def says_more(training: Training) -> bool:
    """Whether a checkpoint's config may say more about the levels than our grids make of it; imports nothing."""
    from_checkpoint = "_class_name" in training.scheduler_config
    flow = from_checkpoint and isinstance(training.schedule, FlowSchedule)
    return flow or training.set_timesteps is not None or bool(_unread_levels(training))


def _unread_levels(training: Training) -> dict[str, Any]:
    """The entries about levels that neither our grids nor the schedule have in them."""
    said, schedule = spoken(training.scheduler_config, LEVELS), training.schedule
    if training.set_timesteps is None:
        said.pop("time_shift_type", None)  # of the shift by the size of the image
    return {key: value for key, value in said.items() if getattr(schedule, key, None) != value}


@dataclass(frozen=True)
class ClassOfDiffusers:
    """A class of diffusers for the model at hand."""

    cls: Any
    accepted: Accepted
    training: Training

    @property
    def decides(self) -> bool:
        """Whether the class makes other levels of the checkpoint's config than our grids."""
        training = self.training
        if isinstance(training.schedule, FlowSchedule) and "use_flow_sigmas" in self.accepted.config:
            return True
        return training.set_timesteps is not None or bool(_unread_levels(training).keys() & self.accepted.effective)

    def scheduler(self, steps: int) -> Any:
        """An object of the class with its timesteps set.

        Raises:
            InputError: the class refuses the config or the number of steps.
        """
        with refusals(self.cls.__name__, steps):
            scheduler = made_for(self.training, self.cls, self.accepted)
            visit, options = pipeline_keywords(scheduler, self.training, steps)
            scheduler.set_timesteps(*(() if visit else (steps,)), **visit, **options)
            return scheduler

    def levels(self, steps: int) -> Levels:
        """The levels that the class visits, each under the timestep that the network gets.

        Raises:
            InputError: the class refuses, or its levels are none of the model's.
        """
        with refusals(self.cls.__name__, steps):
            return self._levels_of(self.scheduler(steps))

    def _levels_of(self, scheduler: Any) -> Levels:
        schedule = self.training.schedule
        points = tuple(_visited(scheduler, schedule))
        if any(level.alpha < 0 for level in points) or any(a.ratio < b.ratio for a, b in pairwise(points)):
            raise InputError(f"{self.cls.__name__} visits no levels of this model from high to low noise")
        end = _end(scheduler, schedule)
        end = end if end.sigma > 0 and end.ratio < points[-1].ratio else CLEAN
        # In the scale of x = alpha * x0 + sigma * eps, which the class may scale in its own way.
        scale = float(scaled_input(scheduler, torch.ones(1), scheduler.timesteps[0]))
        std = float(getattr(scheduler, "init_noise_sigma", 1.0)) * scale / schedule.input_scale(points[0])
        return Levels((*points, end), schedule, std)


def _visited(scheduler: Any, schedule: Schedule) -> Iterator[Level]:
    every = getattr(scheduler, "order", 1)
    timesteps = scheduler.timesteps.tolist()[::every]
    table = getattr(scheduler, "sigmas", None)
    if table is None:
        yield from (schedule.at(timestep) for timestep in timesteps)
        return
    for timestep, sigma in zip(timesteps, table.tolist()[::every]):
        yield replace(schedule.at_sigma(sigma), timestep=float(timestep))


def _end(scheduler: Any, schedule: Schedule) -> Level:
    table = getattr(scheduler, "sigmas", None)
    return CLEAN if table is None else schedule.at_sigma(float(table[len(scheduler.timesteps)]))


def classes_of(names: Sequence[str], training: Training) -> Iterator[ClassOfDiffusers]:
    """Those of the named classes that are for this kind of model, then the checkpoint's own."""
    if not training.scheduler_config:
        return
    import diffusers

    cls: Any
    for name in (*names, training.scheduler_config.get("_class_name")):
        cls = getattr(diffusers, str(name), None)
        if not hasattr(cls, "set_timesteps"):  # unknown here, or without a package that it needs
            continue
        accepted = Accepted.by(cls)
        try:
            config_of_training(cls, accepted, training)
        except InputError:
            continue
        if training.set_timesteps is None or "mu" in accepted.set:
            yield ClassOfDiffusers(cls, accepted, training)


def visits(names: Sequence[str], training: Training, steps: int) -> tuple[Levels, ClassOfDiffusers] | None:
    """The levels that diffusers makes for a scheduler, and the class that does; None where our grids make the same.

    Args:
        names: the classes that the scheduler equals, one for each kind of model.

    Raises:
        InputError: every class that is for the model refuses its config or the number of steps.
    """
    if not says_more(training):
        return None
    refused: list[InputError] = []
    for found in classes_of(names, training):
        if not found.decides:
            return None
        try:
            return found.levels(steps), found
        except InputError as error:
            refused.append(error)
    if refused:
        raise refused[0]
    return None


def ignored_entries(names: Sequence[str], training: Training, steps: int, auto: bool) -> dict[str, Any]:
    """The entries of the checkpoint's config without an effect on a function's levels or steps, though they may ask.

    Args:
        names: the classes that the function equals.
        auto: whether the levels are left to the checkpoint; a grid that is chosen goes before its config.
    """
    found = visits(names, training, steps) if auto else None
    known = found[1].accepted.effective if found else frozenset()
    if found and found[0][-1] == CLEAN:
        known -= {"final_sigmas_type"}
    solver = spoken(training.scheduler_config, SOLVER)
    twin = next(classes_of(names, training), None) if names and solver else None  # diffusers takes seconds to import
    steps_otherwise = {key: value for key, value in solver.items() if twin and key in twin.accepted.effective}
    return _ignored(training, known, auto) | steps_otherwise


def ignored_by_class(cls: Any, training: Training, auto: bool) -> dict[str, Any]:
    """The same for a class of diffusers."""
    return _ignored(training, Accepted.by(cls).effective, auto)


def _ignored(training: Training, known: frozenset[str], auto: bool) -> dict[str, Any]:
    config = training.scheduler_config
    unknown = {key: config[key] for key in config if key not in KNOWN and key[0] != "_" and config[key] is not None}
    asked = unknown | (_unread_levels(training) if auto else {})
    return {key: value for key, value in asked.items() if key not in known}
