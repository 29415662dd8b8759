"""Steps that are exact: where the data is a single point, every common method follows the truth to rounding."""

import math
from collections.abc import Sequence
from itertools import pairwise

from diffexp.certify.bound import Bound
from diffexp.certify.cases import CASES
from diffexp.certify.checks.order import Fit
from diffexp.certify.defects import Defect, point_defects
from diffexp.certify.outcome import Outcome, failed, passed, skipped, warned
from diffexp.certify.runs import LEFT_OVER, moments, nonlinear, point_error
from diffexp.certify.subject import FLOW, Subject
from diffexp.plan.levels import Level
from diffexp.plan.moments import POINT, Response
from diffexp.plan.table import Plan

STEPS = 20
EXACT = 1e-9
MOVES = 1e-6
"""A defect that changes by less from one evaluation to the next has not been made worse there."""
COUNTS = (20, 40, 80)


def point(subject: Subject) -> Outcome:
    """Every update against the exact one, on data that is a single point; names the step that is wrong."""
    if subject.consistency:
        return skipped("a consistency method trusts its network with the noise that is left near the data")
    home = subject.bind(STEPS, subject.home)
    reason = nonlinear(home)
    if reason and isinstance(home.sampler, Plan):
        return skipped(reason)
    if reason:
        return _by_running(subject, home, reason)
    outcome = _in_case(subject, home)
    if outcome.failed or subject.is_class or home.method is None:  # a plan is for one kind of model
        return outcome
    worst, notes = outcome.numbers["largest"], []
    for case in CASES.values():
        if case is subject.home or (case is FLOW and subject.in_k_diffusion_convention):
            continue
        try:
            other = _in_case(subject, subject.bind(STEPS, case))
        except Exception as error:  # whatever a plugin does on a kind of model that it was not written for
            notes.append(f"{case.name} ({type(error).__name__}: {error})")
            continue
        if other.failed and math.isfinite(other.numbers["largest"]):
            return failed(f"on {case.name} levels: {other.sentence}", largest=other.numbers["largest"])
        if other.failed:
            notes.append(f"{case.name} (not finite)")
        else:
            worst = max(worst, other.numbers["largest"])
    if notes:
        return warned(f"{outcome.sentence}; but not for models with {', '.join(notes)} levels", largest=worst)
    return outcome


def _in_case(subject: Subject, bound: Bound) -> Outcome:
    response = moments(bound.widened, POINT)
    defects = point_defects(response, end_of(bound, response))
    largest = max(defect.size for defect in defects)
    tolerance = _tolerance(subject, response)
    if largest <= tolerance:
        return passed(f"every step is exact where the data is a point (to {max(largest, 1e-16):.0e})", largest=largest)
    wrong = _worsening(defects)
    if math.isfinite(largest) and wrong[0] > 0 and len(wrong) > max(2, len(defects) // 4):
        sizes = [_largest(subject.bind(n, bound.case)) for n in COUNTS]
        if all(map(math.isfinite, sizes)) and Fit.of(COUNTS, sizes).order > 0.8:
            return passed(
                f"not exact where the data is a point ({largest:.0e} at {STEPS} steps), but converges", largest=largest
            )
    if largest < 1e-5 and math.isfinite(largest):
        return passed(f"exact where the data is a point, up to float32 rounding ({largest:.0e})", largest=largest)
    return failed(_explained(defects, wrong, response), largest=largest, step=wrong[0], steps=wrong)


def _tolerance(subject: Subject, response: Response) -> float:
    """For a class what float32 tables allow, where the noise is small against the signal."""
    return 1e-5 + 1e-6 / min(level.sigma for level, _ in response.seen) if subject.is_class else EXACT


def path_error(subject: Subject, bound: Bound) -> tuple[float, float]:
    """(largest defect of a run on point data, how much of it is rounding); inf where it is not finite.

    Where the code is not linear, or its method not exact on such data, the output alone counts.
    """
    if not nonlinear(bound) and _exact(subject):
        response = moments(bound.widened, POINT)
        defects = point_defects(response, end_of(bound, response))
        return max(defect.size for defect in defects), max(10 * _tolerance(subject, response), 1e-5)
    error = point_error(bound)
    return error, 2e-3 if subject.is_class else 1e-6


def _exact(subject: Subject) -> bool:
    response = moments(subject.bind(STEPS, subject.home).widened, POINT)
    defects = point_defects(response, end_of(subject.bind(STEPS, subject.home), response))
    return max(defect.size for defect in defects) <= 10 * _tolerance(subject, response)


def end_of(bound: Bound, response: Response) -> Level:
    """Where the output belongs: a class may stop at a low level instead of the clean end, which its output shows."""
    made = response.output.moments
    mean, std = made.mean.item(), math.sqrt(made.variances.item())
    on_path = abs(mean - 1) < 1e-5 or abs(math.hypot(mean, std) - 1) < 1e-5 or abs(mean + std - 1) < 1e-5
    stops = bound.levels is None and 1e-5 < std <= LEFT_OVER and on_path
    return Level(0.0, mean, std) if stops else bound.end


def _largest(bound: Bound) -> float:
    response = moments(bound.widened, POINT)
    return max(defect.size for defect in point_defects(response, end_of(bound, response)))


def _worsening(defects: Sequence[Defect]) -> list[int]:
    """Indices of the evaluations (the last stands for the output) that are worse than the update before them found."""
    wrong = [] if defects[0].size <= MOVES else [0]
    for k, (before, after) in enumerate(pairwise(defects), start=1):
        if not after.level.sigma:
            change = after.size  # the step to the clean end forgets what was wrong before
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
            f"the first evaluation is told sigma {defect.level.ratio:.4g} of a sample that is at sigma {own:.4g}: "
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
    """Whether an old draw counts for more at evaluation ``k`` than the update can have left of it."""
    samples = [sample for _, sample in response.seen] + [response.output]
    old = slice(0, 1 + response.drawn[k - 1])
    before, after = samples[k - 1].columns[0, old], samples[k].columns[0, old]
    norm = before.square().sum()
    if not norm:
        return False
    rest = after - (after @ before) / norm * before
    return bool(rest.abs().max() > MOVES * max(1.0, after.abs().max().item()))


def _by_running(subject: Subject, bound: Bound, reason: str) -> Outcome:
    """For code that is no table: the same on random points, as far as single samples can tell."""
    error = point_error(bound)
    if error > (1e-4 if subject.is_class else 1e-6):
        off = f"off by {error:.1e}" if math.isfinite(error) else "not finite"
        return failed(f"{reason}; where the data is a point its output is {off}", largest=error)
    return passed(f"{reason}; its output is exact where the data is a point", largest=error)
