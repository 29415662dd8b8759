"""The same method elsewhere: the twin in diffusers, and other schedulers with the same table."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import groupby
from typing import Any

import diffusers

from diffexp.catalog.discover import discover
from diffexp.certify.bound import Bound
from diffexp.certify.cases import VELOCITY, VP, Case
from diffexp.certify.checks.point_data import end_of
from diffexp.certify.equivalents import OWN, Twin, natives_of, twins_of
from diffexp.certify.outcome import Outcome, failed, passed, skipped
from diffexp.certify.runs import moments, usual_walk
from diffexp.certify.subject import Subject
from diffexp.components.grids import exponential
from diffexp.errors import InputError
from diffexp.plan.difference import unrolled_difference
from diffexp.plan.levels import CLEAN, Levels
from diffexp.plan.moments import POINT
from diffexp.plan.table import Plan

COUNTS = (10, 25)
SAME = 1e-9
SAME_STEPS = 10


def parity(subject: Subject) -> Outcome:
    """The table against that of the twin in diffusers, on the grid that both call by the same name."""
    twins = natives_of(subject.class_name) if subject.is_class else twins_of(subject.name)
    if not twins:
        return skipped("no native twin is known" if subject.is_class else "diffusers has no class of this method")
    if subject.options and not any(_chosen(subject, twin) for twin in twins):
        return skipped("no twin is known at these options")
    twin = next((twin for twin in twins if _chosen(subject, twin)), twins[0])
    native, cls = f"scheduler={twin.native}", f"diffusers.{twin.cls}"
    other = cls if not subject.is_class else native
    found: dict[int, float] = {}
    for steps in COUNTS:
        try:
            found[steps] = _apart(twin, steps)
        except InputError as error:
            return skipped(f"{other} cannot be compared: {error}")
    worst = max(found.values())
    numbers: dict[str, Any] = {"twin": other, "difference": worst, "tolerance": twin.tolerance}
    if twin.difference:
        return passed(f"differs from {other} on purpose, by {worst:.1e}: {twin.difference}", **numbers)
    if worst > twin.tolerance:
        return failed(f"its table differs from that of {other} by {worst:.1e}", **numbers)
    return passed(f"the table of {other}, to {max(worst, 1e-16):.0e}", **numbers)


def _chosen(subject: Subject, twin: Twin) -> bool:
    return dict(subject.options) == dict(twin.theirs if subject.is_class else twin.options)


def _apart(twin: Twin, steps: int) -> float:
    training = VELOCITY.training if twin.prediction == "v_prediction" else VP.training
    case = Case(f"parity, {twin.grid}", training, "trailing" if twin.grid == OWN else twin.grid)
    theirs = Subject(twin.cls, getattr(diffusers, twin.cls), twin.theirs).bind(steps, case)
    native = Subject(twin.native, _named(twin.native), twin.options)
    ours = native.at(_own_levels(theirs, native.consistency), case) if twin.grid == OWN else native.bind(steps, case)
    if not isinstance(ours.sampler, Plan) or not isinstance(theirs.sampler, Plan):
        raise InputError("one of the two is no table")
    return unrolled_difference(ours.sampler, theirs.sampler)


def _own_levels(bound: Bound, consistency: bool) -> Levels:
    """What a class visits, repeats left out (two evaluations a step), and where it ends."""
    told = [level for level, _ in usual_walk(bound.widened).seen]
    points = [next(same) for _, same in groupby(told, key=lambda level: level.ratio)]
    end = CLEAN if consistency else end_of(bound, moments(bound.widened, POINT))
    return Levels((*points, end), bound.case.training.schedule, bound.start_std)


def _named(name: str) -> Any:
    return discover().get("scheduler", name).load()


def same_table(subject: Subject) -> Outcome:
    """Which other schedulers, at their default options, are the same method."""
    if subject.home is not VP:
        return skipped("is for another kind of model than the others")
    if subject.inverts:
        return skipped("goes from data to noise")
    bound = subject.bind(SAME_STEPS, VP)
    own = bound.sampler
    if not isinstance(own, Plan):
        return skipped(f"no table: {own.reason}")
    if subject.is_class:
        others, tolerance = _tables(_own_levels(bound, subject.consistency)), 1e-4
    else:
        others, tolerance = tables(), SAME
    own = _standard(own)
    apart = {name: unrolled_difference(own, plan) for name, plan in others.items() if name != subject.name}
    same = sorted(name for name, distance in apart.items() if distance <= tolerance)
    nearest = min(apart, key=lambda name: apart[name], default=None)
    numbers: dict[str, Any] = {"same": same}
    if same:
        return passed(f"the same table as {', '.join(same)}", **numbers)
    if nearest is None or math.isinf(apart[nearest]):
        return passed("no other scheduler has this table", **numbers)
    numbers |= {"nearest": nearest, "distance": apart[nearest]}
    return passed(f"no other scheduler has this table; the nearest is {nearest}, {apart[nearest]:.1e} away", **numbers)


@cache
def tables() -> Mapping[str, Plan]:
    """The tables of all native schedulers and plugins at their defaults, uniform in log sigma."""
    return _tables(exponential(VP.training.schedule, SAME_STEPS))


def _tables(levels: Levels) -> dict[str, Plan]:
    found = {}
    for name, entry in discover().of_kind("scheduler").items():
        try:
            sampler = Subject(name, entry.load()).at(levels).sampler
        except Exception:  # a broken plugin is its own certificate's affair
            continue
        if isinstance(sampler, Plan):
            found[name] = _standard(sampler)
    return found


def _standard(plan: Plan) -> Plan:
    """From a start that the network sees with standard deviation 1; how noise is scaled is the grid's affair."""
    return replace(plan, start_std=1 / (plan.start_scale * plan.rows[0].scale))
