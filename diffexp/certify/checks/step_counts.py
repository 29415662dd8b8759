"""Every number of steps: exact where the data is a point, and no jump in the error from one number to the next."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffexp.certify.bound import Bound
from diffexp.certify.checks.point_data import STEPS, exact_on_points
from diffexp.certify.data import DATA
from diffexp.certify.defects import point_defects
from diffexp.certify.outcome import Outcome, failed, passed, skipped
from diffexp.certify.spacing import SHORT
from diffexp.certify.subject import Subject
from diffexp.components.grids.choice import Grid
from diffexp.errors import InputError
from diffexp.plan.moments import POINT, Response
from diffexp.plan.table import Plan

COUNTS = (*range(1, 14), 15, 16, 17, 20, 21, 22, 25, 31, 50, 100, 101)
"""Numbers of steps that are tried where the data is a point; those in between are compared with their neighbours."""
NEIGHBOURS, CLASS_NEIGHBOURS = range(3, 27), range(12, 25)
"""Numbers of steps whose moments are compared with those of the two before and after; fewer for slow classes."""
USUAL = (STEPS, 15, 7)
"""A method that is exact on points is so with one of these, unless it is wrong with all of them."""
JUMP = 1.0
"""Distance from the curve through the neighbours, in changes from one number to the next; up to 0.9 where right."""
FLOAT32 = 1e-5
"""Errors below are rounding, also of float32 tables, and no jump."""


def step_counts(subject: Subject) -> Outcome:
    """Right at every number of steps from 1 to 25 and at larger ones, odd and even."""
    if subject.consistency:
        return skipped("a consistency method leaves the noise near the data to its network")
    if isinstance(subject.scheduler, Plan):
        return skipped("is a plan, which has one number of steps")
    bound = subject.bind(STEPS)
    if bound.nonlinear:
        return skipped(bound.nonlinear)
    draws = bound.draws / STEPS
    errors, wrong, raised = {}, {}, {}
    exact = any(exact_on_points(subject.bind(steps)) for steps in USUAL)
    for steps in COUNTS if exact else ():
        try:
            bound = subject.bind(steps, subject.reference_case, Grid()).in_float64
            error, allowed = _point_error(bound, bound.respond(POINT, math.ceil(draws * steps)))
        except InputError:
            continue  # the check ``few_steps`` reports what a scheduler refuses
        except Exception as error:  # a scheduler under test may raise anything
            raised[steps] = subject.describe_error(error)
            continue
        errors[steps] = error
        if not error <= allowed:
            wrong[steps] = error
    numbers: dict[str, Any] = {"counts": list(errors), "errors": list(errors.values())}
    few = max(3, 4 * (min(errors, default=1) > 1))
    if any(steps > few for steps in raised):
        steps = max(raised)
        return failed(f"with {described(raised, [*errors, *raised])} it raises {raised[steps]}", **numbers)
    if any(steps > few for steps in wrong):
        sizes = [size for size in wrong.values() if math.isfinite(size)]
        numbers["everywhere"] = len(wrong) == len(errors)
        size = f"off by up to {max(sizes):.1e}" if len(sizes) == len(wrong) else "not finite"
        return failed(f"wrong with {described(wrong, list(errors))}: {size} where the data is a point", **numbers)
    jumps = _jumps(subject, draws)
    numbers["jumps"] = list(jumps.values())
    places = [steps for steps, jump in jumps.items() if jump > JUMP]
    if places:
        return failed(
            f"its error jumps with {described(places, list(jumps))}: by up to {max(jumps.values()):.1f} times the "
            f"change from one number of steps to the next{'; odd and even ones differ' if len(places) > 7 else ''}",
            **numbers,
        )
    if not errors and not jumps:
        return skipped("not exact where the data is a point, and makes its own timesteps")
    return passed("right at every number of steps", **numbers)


def described(wrong: Collection[int], tried: Sequence[int]) -> str:
    """Return the numbers of steps in words: ``more than 20 steps``, ``odd numbers of steps above 9``."""
    bad = sorted(wrong)
    first, last = bad[0], bad[-1]
    for every, name in ((1, ""), (2, "odd "), (2, "even ")):
        alike = [n for n in tried if every == 1 or n % 2 == (name == "odd ")]
        below = [n for n in alike if n < first]
        if bad == [n for n in alike if n >= first] and len(bad) > 1:
            return f"{name}numbers of steps above {below[-1]}" if below else f"all {name}numbers of steps"
        if bad == [n for n in alike if n <= last] and len(bad) > 3:
            return f"{name}numbers of steps up to {last}"
    shared = math.gcd(*bad)
    if shared > 2 and len(bad) > 2:
        return f"multiples of {shared} steps ({', '.join(map(str, bad[:5]))}, …)"
    shown = ", ".join(map(str, bad[:6])) + (", …" if len(bad) > 6 else "")
    return f"{shown} step{'s' if bad != [1] else ''}"


def _point_error(bound: Bound, response: Response) -> tuple[float, float]:
    largest = max(defect.size for defect in point_defects(response, bound.end_of(response)))
    return largest, max(10 * bound.defect_tolerance(response), FLOAT32)


def _jumps(subject: Subject, draws: float) -> Mapping[int, float]:
    """Return how far the moments of Gaussian data lie off the curve through those at the neighbouring numbers of steps.

    Both are measured at the last evaluation. Multistep methods may be exact on points with any weights; here they show.
    """
    case = subject.reference_case
    short = subject.accepts(case, SHORT)
    grid = SHORT if short else subject.grid(case, "exponential")
    if grid.name not in (SHORT.name, "exponential"):
        return {}
    moments: dict[int, Tensor] = {}
    for steps in CLASS_NEIGHBOURS if subject.is_class else NEIGHBOURS:
        try:
            bound = subject.bind(steps, case, grid).in_float64
        except InputError:
            continue
        made = bound.respond(DATA, math.ceil(draws * steps)).seen[-1][1].moments
        moments[steps] = torch.cat([made.mean, made.variances.sqrt()])
    first = 5 if short else 14
    return {n: _jump(moments, n) for n in moments if n >= first and {n - 2, n - 1, n + 1, n + 2} <= moments.keys()}


def _jump(moments: Mapping[int, Tensor], n: int) -> float:
    beside, further = (moments[n - k] + moments[n + k] for k in (1, 2))
    off = (moments[n] - (4 * beside - further) / 6).abs().max().item()
    change = max((moments[n + k] - moments[n - k]).abs().max().item() / (2 * k) for k in (1, 2))
    return off / max(change, FLOAT32)
