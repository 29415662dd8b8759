"""What is certified: a scheduler with its options, bound to exact models on the grids that a check asks for."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from diffexp.catalog.discover import discover
from diffexp.catalog.quirks import Quirks, quirks_of
from diffexp.catalog.register import registration
from diffexp.catalog.sources import raised_at
from diffexp.certify.bound import Bound, _bound, quiet
from diffexp.certify.cases import EDM, FLOW, VELOCITY, VP, Case
from diffexp.certify.equivalents import order_of_class
from diffexp.components import grids
from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import bind, in_k_diffusion_convention, returns_plan
from diffexp.errors import InputError
from diffexp.plan.execute import execute
from diffexp.plan.levels import Levels
from diffexp.plan.table import Plan

KARRAS = "karras"
GIVEN = "given"
"""The name of a grid that is made of levels at hand."""
MAKE = {
    "exponential": grids.exponential,
    "karras": grids.karras,
    "flow": grids.flow,
    "trailing": grids.trailing,
    "linspace": grids.linspace,
    "leading": grids.leading,
}


@dataclass(frozen=True)
class Subject:
    """A scheduler with its options.

    Args:
        name: for the page and for messages.
        scheduler: a function in one of the conventions, a diffusers-style class, or a plan.
        options: its keyword arguments.
    """

    name: str
    scheduler: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    _known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def traits(self) -> Mapping[str, Any]:
        found = registration(self.scheduler)
        return found.traits if found else {}

    @property
    def is_class(self) -> bool:
        """Or an object of one."""
        return isinstance(self.scheduler, type) or hasattr(self.scheduler, "set_timesteps")

    @property
    def in_k_diffusion_convention(self) -> bool:
        return inspect.isfunction(self.scheduler) and in_k_diffusion_convention(self.scheduler)

    @property
    def consistency(self) -> bool:
        """Whether it asks a consistency model for the end of the path at once: no solver of an ODE or SDE."""
        return bool(self.traits.get("consistency")) or self.quirks.consistency

    @property
    def cls(self) -> type | None:
        """The class, also of an object of one; None for functions and plans."""
        if not self.is_class:
            return None
        return self.scheduler if isinstance(self.scheduler, type) else type(self.scheduler)

    @property
    def class_name(self) -> str:
        """Name of the class; empty for functions and plans."""
        return self.cls.__name__ if self.cls else ""

    @property
    def quirks(self) -> Quirks:
        return quirks_of(self.cls) if self.cls else Quirks()

    @property
    def declared_weak_order(self) -> float | None:
        """The same where it draws noise: ``@scheduler(order=3, weak_order=2)`` claims another one then."""
        return self.traits.get("weak_order", self.declared_order)

    def blame(self, error: Exception) -> str:
        """The error in one line, with the line of the scheduler's own file where it was raised."""
        by_type = self.is_class and not isinstance(self.scheduler, type)
        thing = type(self.scheduler) if by_type else inspect.unwrap(self.scheduler)
        file = inspect.getsourcefile(thing) if inspect.isfunction(thing) or isinstance(thing, type) else None
        place = raised_at(error, [Path(file)]) if file and not thing.__module__.startswith("diffusers.") else ""
        return f"{type(error).__name__}: {' '.join(str(error).split())}" + (f" ({place})" if place else "")

    @cached_property
    def inverts(self) -> bool:
        """Whether it goes from data to noise: an inversion, no sampler."""
        return self.is_class and "inverse" in self.class_name.lower()

    @property
    def declared_order(self) -> float | None:
        """The order that it claims to have, with the options given; None where it claims none.

        ``@scheduler(order=2)`` claims a number, ``order="order"`` the value of that option, ``order=("order", 2, 3)`` 2
        where that option is 1, and 3 where it is 2.
        """
        if self.is_class:
            return order_of_class(self.scheduler, self.options)
        claim = self.traits.get("order")
        if claim is None or isinstance(claim, int | float):
            return claim
        option, *orders = [claim] if isinstance(claim, str) else claim
        value = self.options.get(option, inspect.signature(self.scheduler).parameters[option].default)
        return float(orders[value - 1] if orders else value)

    @cached_property
    def home(self) -> Case:
        """The first kind of model that it takes: variance preserving for everything but a few classes.

        Raises:
            InputError: it takes none, with the reason given for the first.
        """
        if self.quirks.reads_velocity:
            return VELOCITY
        refusal: InputError | None = None
        for case in (VP, FLOW, EDM):
            try:
                self.bind(4, case)
                return case
            except InputError as error:
                refusal = refusal or error
        assert refusal is not None
        raise refusal

    def grid(self, case: Case, name: str | None = None) -> Grid:
        """A grid by name; for a class in its own words, and where it has none for it, the grid it makes by itself."""
        name = name or case.grid
        if not self.is_class or self._takes(case, name):
            return Grid(name, MAKE[name])
        return Grid()

    def bind(self, steps: int, case: Case = VP, grid: Grid | None = None) -> Bound:
        """Bind to a kind of model; the grid defaults to the case's.

        Raises:
            InputError: the scheduler refuses.
        """
        grid = grid or self.grid(case)
        key = (steps, case.name, grid.name)
        if grid.explicit or grid.name == GIVEN:
            return _bind(self, steps, case, grid)
        if key not in self._known:
            self._known[key] = _bind(self, steps, case, grid)
        return self._known[key]

    def at(self, levels: Levels, case: Case = VP) -> Bound:
        """Bind a function to exactly these levels (the tail of a grid, say)."""
        return self.bind(levels.steps, case, Grid(GIVEN, lambda schedule, steps: levels))

    def _takes(self, case: Case, name: str) -> bool:
        key = ("takes", case.name, name)
        if key not in self._known:
            try:
                with quiet():
                    grid = Grid(name, MAKE[name])
                    bind(self.scheduler, steps=4, training=case.training, grid=grid, options=self.options)
                self._known[key] = True
            except InputError:
                self._known[key] = False
        return self._known[key]


def _bind(subject: Subject, steps: int, case: Case, grid: Grid) -> Bound:
    scheduler, training = subject.scheduler, case.training
    if isinstance(scheduler, Plan) or returns_plan(scheduler):
        levels = grid.levels(training, grid.steps(steps))
        plan = scheduler if isinstance(scheduler, Plan) else scheduler(levels, **subject.options)
        return Bound(partial(execute, plan), case, plan.start_std, levels, None, None, plan)
    options = dict(subject.options)
    if grid.name in (VP.grid, KARRAS) and isinstance(scheduler, type) and _has(scheduler, "timestep_spacing"):
        # Their sigmas begin where their timesteps do: at the last one of the training, whatever the number of steps.
        options.setdefault("timestep_spacing", "linspace")
    with quiet():
        method = bind(scheduler, steps=grid.steps(steps), training=training, grid=grid, options=options)
    return _bound(method, case)


def _has(cls: type, option: str) -> bool:
    return option in inspect.signature(cls.__init__).parameters  # pyright: ignore[reportGeneralTypeIssues]


def subject_of(scheduler: Any, name: str | None = None, options: Mapping[str, Any] | None = None) -> Subject:
    """
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
    """
    Raises:
        InputError: there is no such scheduler, or it has no such option.
    """
    bound = discover().build("scheduler", {"name": name, **options})
    return Subject(name, bound.func, dict(bound.keywords))
