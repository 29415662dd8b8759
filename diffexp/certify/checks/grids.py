"""Order of convergence where it may get lost: on other timestep schedules and for other kinds of model."""

import math
from collections.abc import Iterator
from itertools import pairwise

from diffexp.certify.cases import VE, Case
from diffexp.certify.checks.behaviour import CONSISTENCY
from diffexp.certify.checks.order import SLACK, SMALL, global_error, order
from diffexp.certify.outcome import Outcome, Verdict, failed, passed, skipped
from diffexp.certify.spacing import EVEN, UNEVEN, UNEVEN_WHOLE
from diffexp.certify.subject import KARRAS, Subject
from diffexp.components.grids.choice import Grid
from diffexp.errors import InputError

COUNTS, WEAK_COUNTS = (24, 48, 96), (12, 24, 48)
"""Multiples of the number of steps after which random lengths repeat."""


def grids(subject: Subject) -> Outcome:
    """The order also on timestep schedules of other shapes: Karras's, and steps of unlike lengths in random order."""
    if reason := _not_measurable(subject):
        return skipped(reason)
    found = []
    for name, grid, lowest in _schedules(subject):
        slope = _slope(subject, subject.reference_case, grid)
        if slope is None:
            continue
        if slope < lowest - _slack(lowest):
            return failed(
                f"converges with order {slope:.2f} on {name}, with {lowest:g} on equal steps in log(sigma/alpha): a "
                "coefficient that is right for one kind of timestep schedule only",
                slope=slope,
            )
        found.append(f"{slope:.2f} on {name}")
    if not found:
        return skipped("makes its own timesteps")
    return passed(f"order {', '.join(found)}")


def kinds(subject: Subject) -> Outcome:
    """The order also for the other kinds of model: variance exploding inside EDM's preconditioning, and flow."""
    if reason := _not_measurable(subject):
        return skipped(reason)
    found = []
    for case in subject.kinds[1:]:
        if case is VE:  # the same levels as EDM's
            continue
        grid = EVEN if subject.accepts(case, EVEN) else subject.grid(case)
        slope, lowest = _slope(subject, case, grid), _usual(subject)
        if slope is None:
            continue
        # Its own timestep schedule may begin without signal, where more steps help a stochastic method less.
        slack = _slack(lowest) if grid is EVEN or not subject.bind(12).draws else 1.0
        if slope < lowest - slack:
            return failed(
                f"converges with order {slope:.2f} for models with {case.name} levels, with {lowest:g} for those with "
                f"{subject.reference_case.name} levels",
                slope=slope,
            )
        found.append(f"{slope:.2f} on {case.name} levels")
    if not found:
        return skipped("is for one kind of model")
    return passed(f"order {', '.join(found)}")


def _schedules(subject: Subject) -> Iterator[tuple[str, Grid, float]]:
    """Yield the name of a timestep schedule that the scheduler accepts, the schedule and the order to expect on it."""
    case, usual = subject.reference_case, _usual(subject)
    karras = Grid.named(KARRAS)
    if subject.accepts(case, karras):
        yield "Karras's levels", karras, usual
    for grid in (UNEVEN, UNEVEN_WHOLE):
        if subject.accepts(case, grid):
            declared = subject.declared_uneven_order
            yield "steps of unlike lengths", grid, usual if declared is None else declared
            return


def _not_measurable(subject: Subject) -> str:
    """Return why there is no order to compare with; an empty string if there is one."""
    if subject.consistency:
        return CONSISTENCY
    if "order" not in subject.outcomes:
        subject.outcomes["order"] = order(subject)
    if "order" not in subject.outcomes:
        subject.outcomes["order"] = order(subject)
    usual = subject.outcomes["order"]
    if usual.verdict is not Verdict.PASSED or "order" not in usual.numbers:
        return "no order on the usual timestep schedule, see the check `order`"
    return ""


def _usual(subject: Subject) -> float:
    """Return the order that the scheduler declares, or that was measured."""
    numbers = subject.outcomes["order"].numbers
    return math.floor(numbers["order"] + 0.3) if numbers["declared"] is None else numbers["declared"]


def _slope(subject: Subject, case: Case, grid: Grid) -> float | None:
    """Return the larger slope of the error between numbers of steps an octave apart; None if it refuses so many."""
    weak = subject.bind(12).draws > 0
    try:
        bound = [subject.bind(n, case, grid).in_float64 for n in (WEAK_COUNTS if weak else COUNTS)]
    except InputError:
        return None
    errors = [global_error(one, weak) for one in bound]
    if not all(map(math.isfinite, errors)):
        return -math.inf
    falling = [(before, after) for before, after in pairwise(errors) if before > SMALL]
    return max((math.log2(before / max(after, SMALL)) for before, after in falling), default=math.inf)


def _slack(lowest: float) -> float:
    return 2 * max(SLACK, lowest / 10)
