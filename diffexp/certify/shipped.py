"""A class of diffusers as it ships: with its tables in the precision that it gives them itself."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from diffexp.levels import Level, Schedule
from diffexp.plan.diffusers_class import ClassMethod, begin_at, integrate_once, stepper
from diffexp.plan.method import Evaluate, Noise


@dataclass(frozen=True)
class Shipped:
    """Runs a class without giving its tables more precision, and tells where its sample really is.

    The level of an evaluation is the one that the class computes with. What it tells the network is a timestep, which
    several classes round.
    """

    method: ClassMethod
    schedule: Schedule
    _templates: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def start_std(self) -> float:
        return self.method.start_std

    @property
    def nfe(self) -> int:
        return self.method.nfe

    @property
    def timesteps(self) -> Sequence[float]:
        return self.method.timesteps

    @property
    def ends(self) -> tuple[Level, Level]:
        return self.method.ends

    def part(self, begin: int, end: int) -> "Shipped":
        return type(self)(self.method.part(begin, end), self.schedule)

    def prepared(self) -> Any:
        """A fresh copy of the scheduler, its timesteps set."""
        if not self._templates:
            scheduler = copy.deepcopy(self.method.scheduler)
            self.set_timesteps(scheduler)
            integrate_once(scheduler)
            self._templates.append(scheduler)
        return copy.deepcopy(self._templates[0])

    def set_timesteps(self, scheduler: Any) -> None:
        visit: Mapping[str, Any] = self.method.visit or {"num_inference_steps": self.method.steps}
        scheduler.set_timesteps(**visit, **self.method.set_options)

    def __call__(self, evaluate: Evaluate, x: Tensor, noise: Noise) -> Tensor:
        return self.drive(self.prepared(), evaluate, x)

    def drive(self, scheduler: Any, evaluate: Evaluate, x: Tensor) -> Tensor:
        """The loop of a pipeline."""
        step, span = stepper(scheduler, self.method.step_options), self.method.span
        if span[0]:
            begin_at(scheduler, span[0])
        for t in scheduler.timesteps[slice(*span)]:
            u = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = step(evaluate(x, u, self.level(scheduler, float(t))), t, x)
        return x

    def level(self, scheduler: Any, timestep: float) -> Level:
        """Where the sample is by the scheduler's own table."""
        here = _own_level(scheduler, self.schedule)
        if here is None:
            return self.method.level(timestep)
        return replace(here.scaled(self.schedule.input_scale(here)), timestep=timestep)


class Widened(Shipped):
    """The same with tables and arithmetic in float64, as far as their values allow."""

    def prepared(self) -> Any:
        return self.method.prepared(torch.float64)


def _own_level(scheduler: Any, schedule: Schedule) -> Level | None:
    """By the table of sigmas that it computes with; None where it goes by timesteps."""
    index = getattr(scheduler, "step_index", None)
    if index is None:
        index = getattr(scheduler, "begin_index", None) or 0
    table = getattr(scheduler, "sigmas", None)
    if not getattr(scheduler, "state_in_first_order", True) and hasattr(scheduler, "sigmas_interpol"):
        # Of the two classes of DPM2, the second evaluation of a step looks at another place of the table.
        table, index = scheduler.sigmas_interpol, index - ("Ancestral" in type(scheduler).__name__)
    if table is None and type(scheduler).__name__ == "IPNDMScheduler":
        return schedule.at_ratio(float(scheduler.betas[index] / scheduler.alphas[index]))  # sine and cosine
    if table is None or index >= len(table) or not float(table[index]) > 0:
        return None
    return schedule.at_sigma(float(table[index]))
