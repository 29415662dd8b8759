"""Steps as good as their neighbours: what is wrong in one of them alone can hide from the order of convergence."""

import math
import statistics
from collections.abc import Sequence

import torch

from diffexp.certify.order import DATA
from diffexp.certify.outcome import Outcome, failed, passed, skipped
from diffexp.certify.probe import moments, nonlinear
from diffexp.certify.subject import Subject
from diffexp.levels import Level
from diffexp.plan.analysis import Affine, Response

STEPS = 40
PERIODS = (1, 2, 3)
"""Evaluations after which a method does the same again: its stages, or the orders of a single-step solver."""
WARM_UP, RUN_OUT = 8, 4
"""Evaluations left out at both ends, where multistep methods have fewer estimates or use lower orders."""
FACTOR = 4.0
"""On a smooth grid the schedulers of this package and of diffusers stay below 2."""
SMALL = 1e-7


def even(subject: Subject) -> Outcome:
    """No step in the middle adds much more error on Gaussian data than the steps around it."""
    if subject.consistency:
        return skipped("a consistency method solves no ODE or SDE")
    bound = subject.bind(STEPS, subject.home, subject.grid(subject.home, "exponential")).widened
    if reason := nonlinear(bound):
        return skipped(reason)
    response = moments(bound, DATA)
    ratios = [level.ratio for level, _ in response.seen]
    if any(after > before * 1.5 for before, after in zip(ratios, ratios[1:])):
        return skipped("goes up to higher noise levels again on its way")
    added = _added(response)
    step, factor = _worst(added)
    if factor > FACTOR:
        return failed(
            f"update {step + 1} of {len(added) + 1}, from sigma {ratios[step]:.3g} to {ratios[step + 1]:.3g}, adds "
            f"{factor:.0f} times the error of those around it: a wrong coefficient there",
            step=step + 1,
            factor=factor,
        )
    return passed(
        f"every step is about as accurate as those around it (within a factor of {factor:.1f})", factor=factor
    )


def _worst(added: Sequence[float]) -> tuple[int, float]:
    """(which update adds the most error against those a period before and after it, and how many times theirs)."""
    period = min(PERIODS, key=lambda p: statistics.median(_log_ratio(a, b) for a, b in zip(added, added[p:])))
    worst, most = 0, 0.0
    for k in range(WARM_UP, len(added) - RUN_OUT):
        around = [added[j] for j in range(k % period, len(added), period) if 0 < abs(j - k) <= 2 * period]
        factor = added[k] / max(*around, SMALL)
        if not factor <= most:
            worst, most = k, factor
    return worst, most


def _log_ratio(a: float, b: float) -> float:
    return abs(math.log(max(a, SMALL) / max(b, SMALL)))


def _added(response: Response) -> list[float]:
    """Error that each update adds: how far mean and spread, as shares of the truth, move away from it."""
    errors = [_relative(level, sample) for level, sample in response.seen]
    return [(after - before).abs().max().item() for before, after in zip(errors, errors[1:])]


def _relative(level: Level, sample: Affine) -> torch.Tensor:
    truth, made = DATA.at(level), sample.moments
    spread = truth.variances.sqrt()
    return torch.cat([(made.mean - truth.mean) / spread, made.variances.sqrt() / spread - 1])
