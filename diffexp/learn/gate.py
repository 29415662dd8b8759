"""Whether a learned plan is better than every hand-made scheduler at the same cost, on noises that it has not seen."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from diffexp.catalog.discover import Catalog
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.half_samples import Estimate, spread
from diffexp.components.metrics.intervals import t_quantile
from diffexp.components.models.base import HasClasses
from diffexp.errors import InputError
from diffexp.experiment.batches import make_batch
from diffexp.experiment.metric_suite import MetricSuite
from diffexp.experiment.monitor import Evaluator
from diffexp.experiment.reference import Reference
from diffexp.learn.baselines import Candidate, candidates
from diffexp.learn.problem import Problem
from diffexp.plan.compile import sample
from diffexp.plan.table import Plan
from diffexp.report.comparison import p_value

log = logging.getLogger(__name__)

ROUNDS = ((4, 12), (24, 4))
"""(noises, how many candidates go on) of each round before the comparison; those noises are not the ones it is on."""
DISTRIBUTION = ("fid", "mind", "kid", "wasserstein")
"""Metrics of the distribution; the first that applies is decisive."""
MANY = 1000
"""Images from which on FID is measured."""
PSNR = "psnr"
ACCURACY = (PSNR, "trajectory_error")
"""Distances to the accurate solutions, of images and of points."""
REAL = 0.05


@dataclass(frozen=True)
class Measured:
    """A plan's metrics on the noises of the comparison."""

    name: str
    nfe: int | None
    """None of the accurate solutions."""
    estimates: Mapping[str, Estimate]
    images: Tensor
    """The first few, (n, C, H, W) in [0, 1]; points as they are."""


@dataclass(frozen=True)
class Difference:
    """A learned plan's value less that of a hand-made one, from the same noises."""

    metric: str
    against: str
    learned: float
    other: float
    difference: float
    low: float
    high: float
    p: float
    higher_is_better: bool
    accurate: float | None = None
    """The value of the accurate solutions themselves; None where they were not measured."""
    as_accurate: bool = False
    """Whether it is worse than the hand-made one, but not shown to be worse than the accurate solutions themselves."""

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``as accurate`` (see ``as_accurate``), or ``undecided``."""
        if not self.p < REAL:
            return "undecided"
        if (self.difference > 0) == self.higher_is_better:
            return "better"
        return "as accurate" if self.as_accurate else "worse"

    @property
    def text(self) -> str:
        """The outcome in words, to follow "it"."""
        accurate = "" if self.accurate is None else f"; the accurate solutions have {self.accurate:.4g}"
        return (
            f"{_VERBS[self.verdict].format(self.against)} in {self.metric} ({self.learned:.4g} to {self.other:.4g}, "
            f"difference {self.low:.3g} to {self.high:.3g}, p = {self.p:.1g}{accurate})"
        )


@dataclass(frozen=True)
class Ranked:
    """A hand-made scheduler on a timestep schedule, by its accuracy on a few noises; larger scores are better."""

    name: str
    noises: int
    score: float


@dataclass(frozen=True)
class Proof:
    """The outcome of the comparison."""

    samples: int
    differences: tuple[Difference, ...]
    screened: int
    """How many schedulers on timestep schedules it was compared with, most of them on fewer noises."""
    measured: tuple[Measured, ...] = field(default=(), repr=False)
    """The learned plan, its start, the best hand-made ones, and the accurate solutions where they have a value."""
    ranked: tuple[Ranked, ...] = field(default=(), repr=False)
    """All hand-made ones, the best first."""

    @property
    def better(self) -> bool:
        """Whether it is better than the best of them in one metric, and worse in none.

        A plan that is learned to reproduce the accurate solutions can have their distribution at best, and a solver
        with an error may have a better one by luck: there it is enough not to be worse than the accurate solutions.
        """
        found = {one.verdict for one in self.differences}
        return "better" in found and "worse" not in found

    @property
    def verdict(self) -> str:
        """The outcome in words, to follow "this plan"."""
        return "; it ".join(one.text for one in self.differences) or "could not be compared"

    def record(self) -> dict[str, Any]:
        """As it is written to the origin of a plan."""
        listed = [asdict(one) | {"verdict": one.verdict} for one in self.differences]
        known = {"better": self.better, "verdict": self.verdict, "samples": self.samples}
        return known | {"screened": self.screened, "differences": listed}


_VERBS = {
    "better": "is better than {}",
    "worse": "is worse than {}",
    "as accurate": "is worse than {}, but not shown to be worse than the accurate solutions,",
    "undecided": "is not shown to be better than {}",
}


def compare(problem: Problem, plan: Plan, catalog: Catalog) -> Proof:
    """Compare a plan with its start and with the best hand-made schedulers at the same number of evaluations.

    The hand-made ones are ranked by their accuracy on a few of the noises that were learned from, which favours none of
    them, and the best are measured on all noises of the comparison. Each is compared with the accurate solution from
    where it begins, as the metric ``psnr`` does.
    """
    known = candidates(problem, catalog, plan.nfe)
    log.info("compares with %d hand-made schedulers on timestep schedules of %d evaluations", len(known), plan.nfe)
    if problem.settings.test < MANY and _distribution(problem):
        log.info("test=%d noises are few for a distribution: see its interval", problem.settings.test)
    finalists, ranked = _screened(problem, known)
    learned = measure(problem, plan, "learned")
    others = [measure(problem, one.plan, one.name) for one in finalists]
    start = measure(problem, problem.base, "start")
    accurate = measure(problem, plan, "accurate solutions", solutions=True)
    differences = [
        _beside(difference, learned, accurate)
        for metric in _decisive(learned)
        if (best := _best(metric, others)) and (difference := difference_of(metric, learned, best))
    ]
    measured = (learned, start, *others, *([accurate] if accurate.estimates else []))
    return Proof(problem.settings.test, tuple(differences), len(known), measured, tuple(ranked))


def _beside(difference: Difference, learned: Measured, accurate: Measured) -> Difference:
    """A difference in a metric of the distribution, seen beside the value of the accurate solutions."""
    metric = difference.metric
    if metric not in accurate.estimates or not (to := difference_of(metric, learned, accurate)):
        return difference
    return replace(difference, accurate=to.other, as_accurate=difference.verdict == "worse" != to.verdict)


def difference_of(metric: str, ours: Measured, theirs: Measured) -> Difference | None:
    """The paired difference of a metric; None where there are too few samples for its interval."""
    a, b = ours.estimates[metric], theirs.estimates[metric]
    if not a.halves.shape[1] or a.halves.shape != b.halves.shape:
        return None
    variance, freedom = (part.item() for part in spread(a.halves - b.halves, a.count))
    difference, width = a.value - b.value, t_quantile(freedom) * math.sqrt(variance)
    p = p_value(difference, math.sqrt(variance), freedom)
    ends = (difference - width, difference + width)
    return Difference(metric, theirs.name, a.value, b.value, difference, *ends, p, metric == PSNR)


def measure(
    problem: Problem, plan: Plan, name: str, part: str = "test", count: int | None = None, *, solutions: bool = False
) -> Measured:
    """The metrics of a plan on the noises of a part: accuracy, and on all of them that of the distribution.

    Args:
        solutions: measure the accurate solutions from where the plan begins instead, which have a distribution alone.
    """
    run, config = problem.of_part(part)
    run = replace(run, sampler=plan)
    reference = Reference(run, config)
    if solutions and reference.missing:
        return Measured(name, None, {}, torch.empty(0))
    whole = count is None
    metrics = ({} if solutions else _accuracy(problem)) | (_distribution(problem) if whole else {})
    suite = MetricSuite(metrics, run.model, None if reference.missing else reference, in_sweep=True)
    captions, shown, size = list[str](), list[Tensor](), int(config["batch_size"])
    count = problem.settings.test if count is None else count
    for first in range(0, count, size):
        indices = range(first, min(first + size, count))
        batch = make_batch(run, config["seed"], indices, Evaluator(run.model))
        with torch.inference_mode():
            if solutions:
                x = reference(indices)
            else:
                x = sample(plan, batch.network, batch.noise() * plan.start_std, batch.noise).float().cpu()
            images = run.model.decode(x.to(run.model.device))
        suite.update(indices, x, images)
        captions += run.model.describe(batch.condition)
        if sum(map(len, shown)) < 8:
            shown.append(images[:8])
    classes = run.model.classes if isinstance(run.model, HasClasses) else None
    asked = classes.asked(run.request, range(count)) if classes else None
    facts = RunFacts(plan.nfe, count, 0.0, 0.0, None, None, plan, run.model, captions, asked)
    suite.compute(replace(facts, few_on_purpose=True))  # of which the comparison says so once
    return Measured(name, None if solutions else plan.nfe, suite.estimates, torch.cat(shown)[:8])


def _screened(problem: Problem, known: Sequence[Candidate]) -> tuple[list[Candidate], list[Ranked]]:
    """The candidates that are to be measured on all noises, and the ranking that chose them."""
    kept, ranked = [*known], list[Ranked]()
    for count, most in ROUNDS:
        if len(kept) <= most:
            continue
        count = min(count, problem.settings.train)
        found = sorted(((_score(problem, one, count), -place) for place, one in enumerate(kept)), reverse=True)
        names = [Ranked(kept[-place].name, count, score) for score, place in found]
        ranked = [*names, *ranked[len(names) :]]
        kept = [kept[-place] for _, place in found[:most]]
    return kept, ranked


def _score(problem: Problem, one: Candidate, count: int) -> float:
    """Accuracy of a candidate on a few noises, larger is better; -inf where it has none."""
    try:
        found = measure(problem, one.plan, one.name, "train", count).estimates
    except InputError:
        return -math.inf
    values = [estimate.value * _sign(name) for name, estimate in found.items() if math.isfinite(estimate.value)]
    return values[0] if values else -math.inf


def _sign(metric: str) -> int:
    return 1 if metric == PSNR else -1


def _accuracy(problem: Problem) -> dict[str, Any]:
    """The metric of the distance to the accurate solutions."""
    from diffexp.components.metrics.psnr import PSNR as Psnr  # these import torchmetrics
    from diffexp.components.metrics.trajectory_error import TrajectoryError

    psnr = Psnr()
    if psnr.applies(problem.run.model) is None:
        return {ACCURACY[0]: psnr}
    return {ACCURACY[1]: TrajectoryError()}


def _distribution(problem: Problem) -> dict[str, Any]:
    """The metrics of the run that compare distributions, afresh; of few images MIND alone, which is then decisive."""
    from diffexp.components.metrics.mind import MIND

    mind, model = MIND(), problem.run.model
    if mind.applies(model) is None and problem.settings.test < MANY:
        return {"mind": mind}
    return {
        name: type(metric)(**_options(problem, name))
        for name, metric in problem.run.metrics.items()
        if name in DISTRIBUTION and metric.applies(model) is None
    }


def _options(problem: Problem, name: str) -> dict[str, Any]:
    return {key: value for key, value in problem.config["metric"][name].items() if key != "name"}


def _decisive(learned: Measured) -> list[str]:
    """The accuracy and one metric of the distribution, as far as they were measured."""
    names = [*learned.estimates]
    chosen = [name for name in names if name in ACCURACY]
    for kind in DISTRIBUTION:
        if found := [name for name in names if name.partition("/")[0] == kind]:
            return [*chosen, found[0]]
    return chosen


def _best(metric: str, others: Sequence[Measured]) -> Measured | None:
    able = [one for one in others if metric in one.estimates and math.isfinite(one.estimates[metric].value)]
    return max(able, key=lambda one: _sign(metric) * one.estimates[metric].value, default=None)
