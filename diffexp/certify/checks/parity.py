"""The same method elsewhere: the equivalent class in diffusers, and other schedulers with the same table."""

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
from diffexp.certify.equivalents import OWN, DiffusersEquivalent, equivalents_of
from diffexp.certify.outcome import Outcome, failed, passed, skipped
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
    """The table against that of the same method in diffusers, on the timestep schedule that both know by one name."""
    pairs = equivalents_of(subject.class_name or subject.name)
    if not pairs:
        return skipped("no native twin is known" if subject.is_class else "diffusers has no class of this method")
    chosen = [pair for pair in pairs if subject.options == (pair.theirs if subject.is_class else pair.options)]
    if subject.options and not chosen:
        return skipped("no twin is known at these options")
    pair = (chosen or pairs)[0]
    other = f"scheduler={pair.native}" if subject.is_class else f"diffusers.{pair.cls}"
    try:
        worst = max(_difference(pair, steps) for steps in COUNTS)
    except InputError as error:
        return skipped(f"{other} cannot be compared: {error}")
    numbers: dict[str, Any] = {"twin": other, "difference": worst, "tolerance": pair.tolerance}
    if pair.difference:
        return passed(f"differs from {other} on purpose, by {worst:.1e}: {pair.difference}", **numbers)
    if worst > pair.tolerance:
        return failed(f"its table differs from that of {other} by {worst:.1e}", **numbers)
    return passed(f"the table of {other}, to {max(worst, 1e-16):.0e}", **numbers)


def _difference(pair: DiffusersEquivalent, steps: int) -> float:
    training = (VELOCITY if pair.prediction == "v_prediction" else VP).training
    case = Case(f"parity, {pair.grid}", training, "trailing" if pair.grid == OWN else pair.grid)
    theirs = Subject(pair.cls, getattr(diffusers, pair.cls), pair.theirs).bind(steps, case)
    native = Subject(pair.native, discover().get("scheduler", pair.native).load(), pair.options)
    ours = native.at(_own_levels(theirs, native.consistency), case) if pair.grid == OWN else native.bind(steps, case)
    if not isinstance(ours.sampler, Plan) or not isinstance(theirs.sampler, Plan):
        raise InputError("one of the two is no table")
    return unrolled_difference(ours.sampler, theirs.sampler)


def _own_levels(bound: Bound, consistency: bool) -> Levels:
    """Return the levels that a class visits, without repeats (two evaluations per step), and where it ends."""
    visited = [level for level, _ in bound.in_float64.usual_walk.seen]
    points = [next(same) for _, same in groupby(visited, key=lambda level: level.ratio)]
    end = CLEAN if consistency else bound.end_of(bound.in_float64.moments(POINT))
    return Levels((*points, end), bound.case.training.schedule, bound.start_std)


def same_table(subject: Subject) -> Outcome:
    """Other schedulers that are the same method at their default options."""
    if subject.reference_case is not VP:
        return skipped("is for another kind of model than the others")
    if subject.is_inversion:
        return skipped("runs from data to noise")
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
    """Return the tables of all native schedulers and plugins at their defaults, uniform in log sigma."""
    return _tables(exponential(VP.training.schedule, SAME_STEPS))


def _tables(levels: Levels) -> dict[str, Plan]:
    found = {}
    for name, entry in discover().of_kind("scheduler").items():
        try:
            sampler = Subject(name, entry.load()).at(levels).sampler
        except Exception:  # reported by the plugin's own certificate
            continue
        if isinstance(sampler, Plan):
            found[name] = _standard(sampler)
    return found


def _standard(plan: Plan) -> Plan:
    """Scale the start to standard deviation 1 at the network; how noise is scaled belongs to the timestep schedule."""
    return replace(plan, start_std=1 / (plan.start_scale * plan.rows[0].scale))
