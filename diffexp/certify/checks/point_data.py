"""Exactness of every step on data that is a single point, where all common methods are exact up to rounding."""

import math
from collections.abc import Sequence
from itertools import pairwise

from diffexp.certify.bindings import OfClass
from diffexp.certify.bound import Bound
from diffexp.certify.checks.order import Fit
from diffexp.certify.defects import Defect, point_defects
from diffexp.certify.outcome import Outcome, failed, passed, skipped, warned
from diffexp.certify.subject import Subject
from diffexp.plan.moments import POINT, Response
from diffexp.plan.table import Plan

STEPS = 20
MOVES = 1e-6
"""A smaller change of a defect from one evaluation to the next does not count as a fault of the step between."""
COUNTS = (20, 40, 80)


def point_data(subject: Subject) -> Outcome:
    """Every update against the exact one, on data that is a single point; names the wrong step."""
    if subject.consistency:
        return skipped("a consistency method leaves the noise near the data to its network")
    bound = subject.bind(STEPS)
    if subject.is_finished:
        return _by_running(bound, "is a finished plan, which may scale the network's input otherwise than its level")
    reason = bound.nonlinear
    if reason and isinstance(bound.sampler, Plan):
        return skipped(reason)
    if reason:
        return _by_running(bound, reason)
    outcome = _in_case(subject, bound)
    right, worst, notes = [], outcome.numbers["largest"], []
    for case in subject.kinds[1:]:
        try:
            other = _in_case(subject, subject.bind(STEPS, case))
        except Exception as error:  # a plugin may raise anything on a kind of model that it was not written for
            notes.append(f"{case.name} ({type(error).__name__}: {error})")
            continue
        if not other.failed:
            right.append(case.name)
            worst = max(worst, other.numbers["largest"])
        elif outcome.failed:
            continue
        elif math.isfinite(other.numbers["largest"]):
            return failed(f"on {case.name} levels: {other.sentence}", **other.numbers)
        else:
            notes.append(f"{case.name} (not finite)")
    if outcome.failed:
        known = f"; right on {', '.join(right)} levels, not on {subject.reference_case.name} levels" if right else ""
        return failed(f"{outcome.sentence}{known}", **outcome.numbers)
    if notes:
        return warned(f"{outcome.sentence}; but not for models with {', '.join(notes)} levels", largest=worst)
    return outcome


def _in_case(subject: Subject, bound: Bound) -> Outcome:
    largest, defects, response = _defects(bound)
    if largest <= bound.defect_tolerance(response):
        return passed(f"every step is exact where the data is a point (to {max(largest, 1e-16):.0e})", largest=largest)
    wrong = _worsening(defects)
    if math.isfinite(largest) and wrong[0] > 0 and len(wrong) > max(2, len(defects) // 4):
        sizes = [_defects(subject.bind(n, bound.case))[0] for n in COUNTS]
        if all(map(math.isfinite, sizes)) and Fit.of(COUNTS, sizes).order > 0.8:
            return passed(
                f"not exact where the data is a point ({largest:.0e} at {STEPS} steps), but converges", largest=largest
            )
    if largest < 1e-5 and math.isfinite(largest):
        return passed(f"exact where the data is a point, up to float32 rounding ({largest:.0e})", largest=largest)
    return failed(_explained(defects, wrong, response), largest=largest, step=wrong[0], steps=wrong)


def path_error(subject: Subject, bound: Bound) -> tuple[float, float]:
    """Return (largest defect of a run on point data, the part of it that may be rounding); inf if it is not finite.

    Where the code is not linear, or its method not exact on such data, the output alone counts.
    """
    if not bound.nonlinear and exact_on_points(subject.bind(STEPS)):
        largest, _, response = _defects(bound)
        return largest, max(10 * bound.defect_tolerance(response), 1e-5)
    return bound.point_error(), bound.output_tolerance


def exact_on_points(bound: Bound) -> bool:
    """Whether the method is exact where the data is a point, as nearly all are."""
    largest, _, response = _defects(bound)
    return largest <= 10 * bound.defect_tolerance(response)


def _defects(bound: Bound) -> tuple[float, list[Defect], Response]:
    """Return the largest defect on point data, all of them, and the response that has them."""
    response = bound.in_float64.moments(POINT)
    defects = point_defects(response, bound.end_of(response))
    return max(defect.size for defect in defects), defects, response


def _worsening(defects: Sequence[Defect]) -> list[int]:
    """Return the indices of the evaluations (the last one is the output) with a defect that the update before added."""
    wrong = [] if defects[0].size <= MOVES else [0]
    for k, (before, after) in enumerate(pairwise(defects), start=1):
        if not after.level.sigma:
            change = after.size  # the step to the clean end removes the defects before it
        else:
            change = max(abs(after.signal - before.signal), abs(after.spread - before.spread))
        if not change <= MOVES:
            wrong.append(k)
            if not math.isfinite(after.size):
                break
    return wrong or [max(range(len(defects)), key=lambda k: defects[k].size)]


def _explained(defects: Sequence[Defect], wrong: Sequence[int], response: Response) -> str:
    k = wrong[0]
    defect, before = defects[k], defects[k - 1] if k else None
    if k == 0:
        signal = defect.level.alpha + defect.signal * defect.level.sigma
        own = (1 + defect.spread) * defect.level.sigma / signal if signal > 0 else math.inf
        return (
            f"the first evaluation gets sigma {defect.level.ratio:.4g} for a sample that is at sigma {own:.4g}: "
            "another level than its own"
        )
    assert before is not None
    last = k == len(defects) - 1
    target = "the clean end" if not defect.level.sigma else f"sigma {defect.level.ratio:.3g}"
    place = "the last step" if last else f"update {k} of {len(defects) - 1}"
    place = f"{place}, from sigma {before.level.ratio:.3g} to {target},"
    if len(wrong) > 3:
        place = f"{len(wrong)} of {len(defects) - 1} updates are wrong, the first of them {place}"
    if not math.isfinite(defect.size):
        return f"{place} is not finite"
    sample = [*(sample for _, sample in response.seen), response.output][k]
    if abs(defect.signal) <= MOVES and bool(sample.columns[:, 1:-1].any()):
        if _reused(response, k):
            return f"{place} uses a noise again that was used before; it should be a fresh draw"
        if not defect.level.sigma:
            return f"{place} leaves noise of standard deviation {defect.spread:.2g} in the output: a wrong variance"
        factor = 1 + defect.spread
        return f"{place} leaves {factor:.3g} times the noise that belongs there: what it adds has a wrong variance"
    return f"{place} is off by {defect.size:.1e} where the data is a point: a wrong coefficient"


def _reused(response: Response, k: int) -> bool:
    """Whether an old draw has a larger share in the sample at evaluation ``k`` than the update can have left of it."""
    samples = [sample for _, sample in response.seen] + [response.output]
    old = slice(0, 1 + response.drawn[k - 1])
    before, after = samples[k - 1].columns[0, old], samples[k].columns[0, old]
    norm = before.square().sum()
    if not norm:
        return False
    rest = after - (after @ before) / norm * before
    return bool(rest.abs().max() > MOVES * max(1.0, after.abs().max().item()))


def _by_running(bound: Bound, reason: str) -> Outcome:
    """Judge code that is no table by its output on random points."""
    error = bound.point_error()
    if error > (1e-4 if isinstance(bound, OfClass) else bound.output_tolerance):
        off = f"off by {error:.1e}" if math.isfinite(error) else "not finite"
        return failed(f"{reason}; where the data is a point its output is {off}", largest=error)
    return passed(f"{reason}; its output is exact where the data is a point", largest=error)
