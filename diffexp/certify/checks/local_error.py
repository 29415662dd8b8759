"""Error of single steps: a wrong coefficient in one step need not show in the order of convergence."""

import statistics
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from diffexp.certify.checks.order import smooth
from diffexp.certify.data import DATA
from diffexp.certify.outcome import Outcome, failed, passed, skipped
from diffexp.certify.subject import Subject
from diffexp.plan.levels import Level
from diffexp.plan.moments import Affine

STEPS = 40
PERIODS = (1, 2, 3)
"""Evaluations after which a method repeats itself: its stages, or the orders of a single-step solver."""
WARM_UP, RUN_OUT = 8, 4
"""Steps skipped at both ends, where multistep methods have fewer estimates or use lower orders."""
FACTOR = 2.2
"""On a smooth timestep schedule the schedulers of this package and of diffusers stay below 1.8."""
SMALL = 1e-7


def local_error(subject: Subject) -> Outcome:
    """No step in the middle adds much more error on Gaussian data than the steps around it."""
    if subject.consistency:
        return skipped("a consistency method solves no ODE or SDE")
    bound = smooth(subject, STEPS).in_float64
    if reason := bound.nonlinear:
        return skipped(reason)
    response = bound.moments(DATA)
    ratios = [level.ratio for level, _ in response.seen]
    if any(after > before * 1.5 for before, after in zip(ratios, ratios[1:])):
        return skipped("returns to higher noise levels on its way")
    if len(ratios) < STEPS - 1:
        return skipped(f"makes {len(ratios)} evaluations in {STEPS} steps")
    errors = [_relative(level, sample) for level, sample in response.seen]
    places = _full_steps(errors)
    added = _added([errors[k] for k in places])
    step, factor = _worst(added)
    if factor > FACTOR:
        before, after = places[step], places[step + 1]
        return failed(
            f"the update from evaluation {before + 1} to {after + 1} of {len(ratios)}, from sigma "
            f"{ratios[before]:.3g} to {ratios[after]:.3g}, adds {factor:.1f} times the error of those around it: "
            "a wrong coefficient there",
            evaluation=before + 1,
            factor=factor,
        )
    return passed(f"every step is about as accurate as those around it (by a factor of {factor:.1f})", factor=factor)


def _full_steps(errors: Sequence[Tensor]) -> range:
    """Return the evaluations at which whole steps begin: the error is smaller there than at stages in between."""
    spans = [range(first, len(errors), period) for period in PERIODS for first in range(period)]
    sizes = {span: statistics.median(_added([errors[k] for k in span])) / span.step for span in spans}
    return next(span for span in spans if sizes[span] <= 2 * min(sizes.values()))


def _worst(added: Sequence[float]) -> tuple[int, float]:
    """Return (the step that adds the most error against those before and after it, how many times theirs)."""
    worst, most = WARM_UP, 0.0
    for k in range(WARM_UP, len(added) - RUN_OUT):
        around = [*added[k - 2 : k], *added[k + 1 : k + 3]]
        factor = added[k] / max(*around, SMALL)
        if not factor <= most:
            worst, most = k, factor
    return worst, most


def _added(errors: Sequence[Tensor]) -> list[float]:
    """Return the error that each step adds."""
    return [(after - before).abs().max().item() for before, after in pairwise(errors)]


def _relative(level: Level, sample: Affine) -> Tensor:
    """Return how far mean and spread are from the truth, as shares of the spread, [2 d]."""
    truth, made = DATA.at(level), sample.moments
    spread = truth.variances.sqrt()
    return torch.cat([(made.mean - truth.mean) / spread, made.variances.sqrt() / spread - 1])
