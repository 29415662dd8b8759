"""Subject of a certificate: a scheduler with its options, bound to exact models on the grids of the checks."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from diffexp.catalog.discover import discover
from diffexp.catalog.quirks import Quirks, quirks_of
from diffexp.catalog.register import registration
from diffexp.catalog.sources import raised_at
from diffexp.certify.bindings import OfClass, OfFunction, OfPlan
from diffexp.certify.bound import Bound
from diffexp.certify.cases import CASES, EDM, FLOW, VELOCITY, VP, Case
from diffexp.certify.equivalents import order_of_class
from diffexp.certify.outcome import Outcome
from diffexp.certify.runs import quiet
from diffexp.certify.spacing import GIVEN
from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import bind, in_k_diffusion_convention, made_plan, returns_plan
from diffexp.components.schedulers.foreign.diffusers_config import Accepted
from diffexp.components.schedulers.foreign.diffusers_method import ClassMethod
from diffexp.errors import InputError
from diffexp.plan.levels import CLEAN, Levels, Schedule
from diffexp.plan.method import FunctionMethod
from diffexp.plan.table import Plan

KARRAS = "karras"


@dataclass(frozen=True, eq=False)
class Subject:
    """A scheduler with its options.

    Args:
        name: for the page and for messages.
        scheduler: a function in one of the conventions, a diffusers-style class or object of one, or a plan.
        options: its keyword arguments.
    """

    name: str
    scheduler: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    trusting: bool = field(default=False, kw_only=True)
    """Whether networks go by the levels that the scheduler computes with, whatever timesteps it gives them."""
    outcomes: dict[str, Outcome] = field(default_factory=dict, init=False, repr=False)
    """Results of the checks that ran, by their names."""

    @property
    def traits(self) -> Mapping[str, Any]:
        """Traits that the scheduler was registered with."""
        found = registration(self.scheduler)
        return found.traits if found else {}

    @property
    def cls(self) -> type | None:
        """The class, also of an object of one; None for functions and plans."""
        if isinstance(self.scheduler, type):
            return self.scheduler
        return type(self.scheduler) if hasattr(self.scheduler, "set_timesteps") else None

    @property
    def is_class(self) -> bool:
        """Whether the scheduler is a diffusers-style class or an object of one."""
        return self.cls is not None

    @property
    def is_plan(self) -> bool:
        """Whether the scheduler is a finished table or makes one, for the kind of model that it has in mind."""
        return isinstance(self.scheduler, Plan) or returns_plan(self.scheduler)

    @property
    def is_finished(self) -> bool:
        """Whether the scheduler is a plan from a file, with levels and a number of evaluations of its own."""
        return bool(self.traits.get("finished"))

    @property
    def class_name(self) -> str:
        """Name of the class; empty for functions and plans."""
        return self.cls.__name__ if self.cls else ""

    @property
    def quirks(self) -> Quirks:
        return quirks_of(self.cls) if self.cls else Quirks()

    def has_option(self, name: str) -> bool:
        """Whether the scheduler is a class that can be made with an option, which has an effect."""
        return isinstance(self.scheduler, type) and name in Accepted.by(self.scheduler).effective

    @property
    def in_k_diffusion_convention(self) -> bool:
        return inspect.isfunction(self.scheduler) and in_k_diffusion_convention(self.scheduler)

    @property
    def consistency(self) -> bool:
        """Whether the scheduler samples consistency models, so that it solves no ODE or SDE."""
        return bool(self.traits.get("consistency")) or self.quirks.consistency

    @property
    def is_inversion(self) -> bool:
        """Whether the scheduler runs from data to noise and is no sampler."""
        return "inverse" in self.class_name.lower()

    @property
    def declared_order(self) -> float | None:
        """The order that the scheduler declares for its options; None where it declares none.

        ``@scheduler(order=2)`` declares a number, ``order="order"`` the value of that option, ``order=("order", 2, 3)``
        2 where that option is 1, and 3 where it is 2.
        """
        if self.cls is not None:
            return order_of_class(self.scheduler, self.options)
        claim = self.traits.get("order")
        if claim is None or isinstance(claim, int | float):
            return claim
        option, *orders = [claim] if isinstance(claim, str) else claim
        value = self.options.get(option, inspect.signature(self.scheduler).parameters[option].default)
        return float(orders[value - 1] if orders else value)

    @property
    def declared_weak_order(self) -> float | None:
        """The declared order of a scheduler that draws noise: ``weak_order=`` where it differs from ``order=``."""
        return self.traits.get("weak_order", self.declared_order)

    @property
    def declared_uneven_order(self) -> float | None:
        """The declared order on steps of unlike lengths: ``uneven_order=`` where it differs from the others."""
        return self.traits.get("uneven_order")

    def describe_error(self, error: Exception) -> str:
        """Return the error in one line, with the line of the scheduler's own file that raised it."""
        thing = self.cls or inspect.unwrap(self.scheduler)
        file = inspect.getsourcefile(thing) if inspect.isfunction(thing) or isinstance(thing, type) else None
        place = raised_at(error, [Path(file)]) if file and not thing.__module__.startswith("diffusers.") else ""
        return f"{type(error).__name__}: {' '.join(str(error).split())}" + (f" ({place})" if place else "")

    @cached_property
    def reference_case(self) -> Case:
        """The first kind of model that the scheduler accepts: variance preserving for all but a few classes.

        Raises:
            InputError: the scheduler accepts none, with its reason for the first.
        """
        if self.quirks.reads_velocity:
            return VELOCITY
        refusals: list[InputError] = []
        for case in (VP, FLOW, EDM):
            try:
                self.bind(4, case)
                return case
            except InputError as error:
                refusals.append(error)
        raise refusals[0]

    def grid(self, case: Case, name: str | None = None) -> Grid:
        """Return a timestep schedule by name; for a class that cannot make it, the class's own."""
        named = Grid.named(name or case.grid)
        return named if self.accepts(case, named) else Grid()

    def bind(self, steps: int, case: Case | None = None, grid: Grid | None = None) -> Bound:
        """Bind to a kind of model, by default the reference case; the timestep schedule defaults to the case's.

        Raises:
            InputError: the scheduler refuses.
        """
        case = case or self.reference_case
        return self._bind(steps, case, grid or self.grid(case))

    def at(self, levels: Levels, case: Case = VP) -> Bound:
        """Bind a function to exactly these levels."""
        return self.bind(levels.steps, case, Grid(GIVEN, lambda schedule, steps: levels))

    @cached_property
    def trusted(self) -> "Subject":
        """The same for networks that go by its levels, whatever timesteps it gives them."""
        return replace(self, trusting=True)

    @cached_property
    def _bind(self) -> Callable[[int, Case, Grid], Bound]:
        """``_bind_to`` with its results cached, so that checks share their runs."""
        # Networks with a time scale of their own, and plans that tell the network another level on purpose.
        trusting = self.trusting or self.consistency or self.is_finished
        bound = functools.partial(_bind_to, self.scheduler, self.options)
        return functools.cache(lambda *where: replace(bound(*where), trusting=trusting))

    @cached_property
    def kinds(self) -> list[Case]:
        """The kinds of model that the scheduler accepts; the reference case is the first."""
        cases = [self.reference_case]
        for case in () if self.is_plan else CASES.values():
            fits = case not in cases and not (case is FLOW and self.in_k_diffusion_convention)
            if fits and self.accepts(case, Grid()):
                cases.append(case)
        return cases

    @cached_property
    def accepts(self) -> Callable[[Case, Grid], bool]:
        """Whether the scheduler accepts a timestep schedule for a kind of model, cached; only classes may refuse."""
        return functools.cache(self._try_grid)

    def _try_grid(self, case: Case, grid: Grid) -> bool:
        if not self.is_class:
            return True
        try:
            with quiet():
                bind(self.scheduler, steps=4, training=case.training, grid=grid, options=self.options)
        except InputError:
            return False
        return True


def _bind_to(scheduler: Any, options: Mapping[str, Any], steps: int, case: Case, grid: Grid) -> Bound:
    steps, training = grid.steps(steps), case.training
    if isinstance(scheduler, Plan) or returns_plan(scheduler):
        levels = grid.levels(training, steps)
        if isinstance(scheduler, Plan):
            return OfPlan(case, scheduler, levels)
        plan = made_plan(scheduler, levels, options)
        finished = (found := registration(scheduler)) and found.traits.get("finished")
        return OfPlan(case, plan, _own_levels(plan, training.schedule) if finished else levels)
    if grid.name in (VP.grid, KARRAS) and isinstance(scheduler, type) and _has(scheduler, "timestep_spacing"):
        # Their sigmas begin where their timesteps do: at the last one of the training, whatever the number of steps.
        options = {"timestep_spacing": "linspace", **options}
    with quiet():
        method = bind(scheduler, steps=steps, training=training, grid=grid, options=options)
    if isinstance(method, ClassMethod):
        return OfClass.as_shipped(case, method)
    assert isinstance(method, FunctionMethod)
    return OfFunction(case, method)


def _own_levels(plan: Plan, schedule: Schedule) -> Levels:
    """The levels of a plan from a file."""
    points = [row.level.scaled(1 / schedule.input_scale(row.level)) for row in plan.unscaled().rows]
    return Levels((*points, CLEAN), schedule, plan.start_std)


def _has(cls: type, option: str) -> bool:
    return option in inspect.signature(cls.__init__).parameters  # pyright: ignore[reportGeneralTypeIssues]


def subject_of(scheduler: Any, name: str | None = None, options: Mapping[str, Any] | None = None) -> Subject:
    """Return what is certified for a scheduler.

    Args:
        scheduler: the name of an option, a function, a diffusers-style class or object, or a plan.

    Raises:
        InputError: there is no such scheduler, or it has no such option.
    """
    options = dict(options or {})
    if isinstance(scheduler, str):
        return named(scheduler, options)
    found = registration(scheduler)
    own = found.name if found else getattr(scheduler, "name" if isinstance(scheduler, Plan) else "__name__", None)
    return Subject(name or own or type(scheduler).__name__, scheduler, options)


def named(name: str, options: Mapping[str, Any]) -> Subject:
    """Return the scheduler of an option, such as ``euler``.

    Raises:
        InputError: there is no such scheduler, or it has no such option.
    """
    bound = discover().build("scheduler", {"name": name, **options})
    return Subject(name, bound.func, dict(bound.keywords))
