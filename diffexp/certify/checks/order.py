"""Order of convergence: of the ODE solution, and the weak and strong order of a stochastic scheduler."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from diffexp.certify.bound import Bound
from diffexp.certify.data import DATA, MIXTURE
from diffexp.certify.defects import coupled_distance
from diffexp.certify.outcome import Outcome, failed, passed, skipped
from diffexp.certify.subject import Subject
from diffexp.components.grids.choice import Grid
from diffexp.plan.moments import POINT, Response
from diffexp.plan.table import Plan

COUNTS = (32, 48, 64, 96, 128, 192)
"""Numbers of steps: enough for the leading term of the error, few enough for float32 tables."""
CLASS_COUNTS = (24, 32, 48, 64, 80, 96)
"""For classes of diffusers, which take milliseconds per step."""
WEAK_COUNTS = (16, 24, 32, 48, 64, 96)
STRONG_COUNTS = (9, 13, 17, 25, 33, 41)
"""Each is compared with 2n - 1 steps, whose levels include all of its own."""
SMALL = 1e-9
"""Smaller errors are rounding and contain no information about the order."""
SLACK = 0.25
"""How much smaller than the declared order a fitted one may be (a tenth of it, if that is more)."""


@dataclass(frozen=True)
class Fit:
    """error ~ counts^-order."""

    order: float
    half_width: float
    """Of the 95 % confidence interval of the slope."""
    last: float
    """The slope between the last two counts that are an octave apart."""

    @classmethod
    def of(cls, counts: Sequence[int], errors: Sequence[float]) -> "Fit":
        """Fit by least squares on logarithms (at least three points)."""
        from scipy.special import stdtrit  # imported late: it takes a while

        x, y = np.log(counts), np.log(np.maximum(errors, 1e-300))
        dx = x - x.mean()
        slope = float(dx @ y / (dx @ dx))
        rest = y - y.mean() - slope * dx
        deviation = math.sqrt(float(rest @ rest) / (len(x) - 2) / float(dx @ dx))
        half = next(k for k, count in enumerate(counts) if count * 2 >= counts[-1])
        last = float(y[half] - y[-1]) / float(x[-1] - x[half])
        return cls(-slope, float(stdtrit(len(x) - 2, 0.975)) * deviation, last)

    def __str__(self) -> str:
        return f"{self.order:.2f} ± {self.half_width:.2f}"


def order(subject: Subject) -> Outcome:
    """Order of convergence to the exact ODE solution for a mixture, or to the moments of Gaussian data."""
    if subject.consistency:
        return skipped("a consistency method evaluates its network for the end of the path and solves no ODE or SDE")
    bound = subject.bind(12)
    weak = bound.draws > 0
    if weak and (reason := bound.nonlinear):
        return skipped(f"{reason} and draws noise, so that the moments of its output are not known exactly")
    counts = WEAK_COUNTS if weak else CLASS_COUNTS if subject.is_class else COUNTS
    errors = [global_error(smooth(subject, n).in_float64, weak) for n in counts]
    outcome = _judged(subject, counts, errors, "weak order" if weak else "order")
    return _as_shipped(subject, outcome) if subject.is_class and not weak else outcome


def strong_order(subject: Subject) -> Outcome:
    """Order in which the paths of a stochastic scheduler converge, driven by one Brownian path; exact, no sampling."""
    if subject.consistency:
        return skipped("a consistency method solves no SDE")
    bound = subject.bind(12)
    if not bound.draws:
        return skipped("draws no noise")
    if reason := bound.nonlinear:
        return skipped(reason)
    runs = {n: smooth(subject, n).in_float64 for count in STRONG_COUNTS for n in (count, 2 * count - 1)}
    made = {n: run.moments(DATA) for n, run in runs.items()}
    for count in STRONG_COUNTS:
        reason = _not_coupled(made[count], made[2 * count - 1], count)
        if reason:
            return skipped(reason)
    points = {n: runs[n].moments(POINT) for n in (2 * count - 1 for count in STRONG_COUNTS)}
    errors = [coupled_distance(made[n], made[2 * n - 1], points[2 * n - 1]) for n in STRONG_COUNTS]
    numbers: dict[str, Any] = {"counts": list(STRONG_COUNTS), "errors": errors}
    if not all(map(math.isfinite, errors)):
        return failed("its paths are not finite", **numbers)
    if max(errors) < SMALL:
        return passed("its paths do not change with the number of steps", **numbers)
    fit = Fit.of(STRONG_COUNTS, errors)
    numbers |= {"order": fit.order, "interval": fit.half_width}
    if fit.last < 0.35:
        return failed(f"its paths do not converge: strong order {fit}", **numbers)
    return passed(
        f"strong order {fit}: distance {errors[-1]:.1e} between {STRONG_COUNTS[-1]} steps and twice as many", **numbers
    )


def _not_coupled(coarse: Response, fine: Response, count: int) -> str:
    """Return why two runs cannot be driven by one Brownian path; an empty string if they can."""
    if len(coarse.seen) != count or len(fine.seen) != 2 * count - 1:
        return "more than one evaluation a step: its draws belong to no common Brownian path"
    if any(after - before > 1 for before, after in zip(coarse.drawn, coarse.drawn[1:])):
        return "more than one draw a step: they belong to no common Brownian path"
    ratios = [level.ratio for level, _ in coarse.seen]
    if not np.allclose(ratios, [level.ratio for level, _ in fine.seen[::2]], rtol=1e-4):
        return "its grids are not nested"
    return ""


def _as_shipped(subject: Subject, outcome: Outcome) -> Outcome:
    """Repeat the check with the float32 tables of a class, and fail if more steps increase the error."""
    errors = [_ode_error(smooth(subject, n)) for n in CLASS_COUNTS]
    numbers = {**outcome.numbers, "errors_as_shipped": errors}
    least = min(range(len(errors)), key=lambda k: errors[k])
    if errors[-1] > 1.2 * errors[least]:
        return failed(
            f"its error grows from {errors[least]:.1e} at {CLASS_COUNTS[least]} steps to {errors[-1]:.1e} at "
            f"{CLASS_COUNTS[-1]}, because its coefficients are float32; with float64 arithmetic: {outcome.sentence}",
            **numbers,
        )
    return replace(outcome, numbers=numbers)


def global_error(bound: Bound, weak: bool) -> float:
    """Return the error that falls with the order: of the ODE's solution, or of moments for the weak order."""
    return _moment_error(bound) if weak else _ode_error(bound)


def _ode_error(bound: Bound) -> float:
    """Return the root mean square distance to the exact solution at the level of the last evaluation.

    The step to the clean end does not count: it is of first order in the last sigma, not in the number of steps.
    """
    walked = bound.usual_walk
    (here, first), (there, last) = walked.seen[0], walked.seen[-1]
    return (last - MIXTURE.transport(first, here, there)).square().mean().sqrt().item()


def _moment_error(bound: Bound) -> float:
    """Return the largest error of a mean or standard deviation, at the level of the last evaluation."""
    level, sample = bound.moments(DATA).seen[-1]
    truth, made = DATA.at(level), sample.moments
    means = (made.mean - truth.mean).abs().max()
    return max(means.item(), (made.variances.sqrt() - truth.variances.sqrt()).abs().max().item())


def smooth(subject: Subject, steps: int) -> Bound:
    """Bind to the timestep schedule that orders are measured on: uniform in log sigma, if the scheduler accepts it."""
    return subject.bind(steps, grid=_smooth_grid(subject))


def _smooth_grid(subject: Subject) -> Grid:
    return subject.grid(subject.reference_case, "exponential")


def _judged(subject: Subject, counts: Sequence[int], errors: Sequence[float], noun: str) -> Outcome:
    """Judge how fast the errors fall with these numbers of steps."""
    uniform = _smooth_grid(subject).name == "exponential"
    used = "a grid uniform in log sigma" if uniform else "its own grid"
    declared = subject.declared_weak_order if noun == "weak order" else subject.declared_order
    numbers: dict[str, Any] = {"kind": noun, "grid": used, "counts": list(counts), "errors": list(errors)}
    numbers["declared"] = declared
    if not all(map(math.isfinite, errors)):
        bad = next(n for n, error in zip(counts, errors) if not math.isfinite(error))
        return failed(f"what the network sees is not finite at {bad} steps", **numbers)
    large = [(n, error) for n, error in zip(counts, errors) if error > SMALL]
    if len(large) < 3:
        return passed(f"exact to rounding ({max(errors):.0e}) at every number of steps", **numbers)
    fit = Fit.of(*zip(*large))
    numbers |= {"order": fit.order, "interval": fit.half_width, "last_slope": fit.last}
    few, many = counts[0], counts[-1]
    if fit.last < 1.5 and (longest := _longest_step(subject, many)) > 2 * few / many * _longest_step(subject, few):
        return skipped(
            f"its steps do not get shorter as they become more ({many} of them still take sigma down by a factor "
            f"of {math.exp(longest):.2g} at once), so that no order shows: error {errors[-1]:.1e} on {used}",
            **numbers,
        )
    found = f"{noun} {fit}" + ("" if declared is None else f" (declared {declared:g})")
    found += f", error {errors[-1]:.1e} at {many} steps on {used}"
    if fault := _too_slow(subject, fit, declared, errors[-1], found):
        return failed(fault, **numbers)
    return passed(found, **numbers)


def _too_slow(subject: Subject, fit: Fit, declared: float | None, error: float, found: str) -> str:
    """Return why a fit is below the order that the scheduler declares, or should have; an empty string if it is not."""
    if error > 0.1 or fit.last < 0.5:
        return f"does not converge to the truth: {found}"
    lowest = 1.0 if declared is None else declared
    slack = max(SLACK, lowest / 10)
    if max(fit.order + fit.half_width, fit.last) < lowest - slack or fit.last < lowest - 2 * slack:
        end = f", {fit.last:.2f} from half as many steps on" if fit.last < fit.order - fit.half_width else ""
        return f"converges more slowly than it should: {found}{end}; a wrong coefficient?"
    if declared is None and min(fit.order, fit.last) < 1.5 and _works_for_more(subject):
        return (
            f"{found}, although it looks back or evaluates more than once a step: a wrong coefficient, or, if that is "
            "meant, declare it with @scheduler(order=1)"
        )
    return ""


def _longest_step(subject: Subject, steps: int) -> float:
    """Return how far log sigma falls from one evaluation to the next, at most."""
    ratios = [level.ratio for level, _ in smooth(subject, steps).in_float64.usual_walk.seen]
    return max((math.log(before / after) for before, after in pairwise(ratios)), default=0.0)


def _works_for_more(subject: Subject) -> bool:
    """Whether a step uses more evaluations or older outputs than a method of order 1 needs."""
    steps = 12
    sampler = subject.bind(steps).sampler
    return isinstance(sampler, Plan) and (sampler.depth > 0 or sampler.nfe > 1.5 * steps)
