"""Kinds of model: what the network predicts, and clipping of its x0 estimate."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from diffexp.certify.bound import Bound
from diffexp.certify.cases import VP, Case
from diffexp.certify.checks.behaviour import CONSISTENCY
from diffexp.certify.checks.point_data import exact_on_points
from diffexp.certify.data import BOTH
from diffexp.certify.defects import point_defects
from diffexp.certify.outcome import Outcome, failed, passed, skipped
from diffexp.certify.runs import Points, distance, random_points
from diffexp.certify.spacing import EVEN
from diffexp.certify.subject import Subject
from diffexp.errors import InputError
from diffexp.plan.predictions import Clip, Preconditioned, Prediction, Target

STEPS = 10
SAME, SINGLE = 1e-7, 1e-4
"""Relative change of the moments of a run with the prediction type that is rounding; classes compute in float32."""
LIMIT = 0.8
"""Of clipping: another one than 1, which code may have written out."""
BEYOND = 3.0
"""Largest x0 of data that is clipped."""
NOT_SUPPORTED = (InputError, NotImplementedError, ValueError)
"""What classes of diffusers raise for a prediction type that they do not know."""


def predictions(subject: Subject) -> Outcome:
    """The same samples for networks that predict the noise, x0, v or the flow's velocity: the data are the same."""
    if subject.consistency:
        return skipped(CONSISTENCY)
    found: list[str] = []
    for case in subject.kinds:
        moments, errors = _by_type(subject, case)
        wrong = _unlike(moments, errors, SINGLE if subject.is_class else SAME)
        found += [name for name in moments if name not in found]
        if wrong:
            right = [name for name in moments if name not in wrong]
            shown = " and ".join(f"{name} (off by {size:.1e})" for name, size in wrong.items())
            return failed(
                f"wrong for networks that predict {shown}, right with {', '.join(right)} on {case.name} levels",
                wrong=list(wrong),
            )
    if len(found) < 2:
        return skipped("is for one prediction type")
    return passed(f"the same samples for networks that predict {', '.join(found)}")


def of_types(subject: Subject, case: Case) -> Iterator[tuple[str, Case]]:
    """Yield a kind of model with every prediction type that the scheduler may be used with, by its name."""
    trained = case.training
    known: list[tuple[str, Target]] = [(kind.value, kind) for kind in Prediction]
    if isinstance(trained.prediction, Preconditioned):
        opposite = replace(trained.prediction, sign=-trained.prediction.sign)
        known = [(Prediction.EPSILON.value, trained.prediction), (Prediction.V.value, opposite)]
    elif subject.is_class:
        known = [(name, kind) for name, kind in known if kind is not Prediction.FLOW]
    if subject.is_plan:
        return
    if subject.is_class and (
        not subject.has_option("prediction_type")
        or trained.prediction is Prediction.FLOW  # classes know no other for flow models
        or subject.quirks.reads_velocity
    ):
        return
    for name, kind in known:
        config = {**trained.scheduler_config, "prediction_type": name} if trained.scheduler_config else {}
        yield name, Case(f"{case.name}, {name}", replace(trained, prediction=kind, scheduler_config=config), case.grid)


def _by_type(subject: Subject, case: Case) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return (moments at every evaluation and of the output, error where the data is a point) by prediction type."""
    moments, errors = {}, {}
    for name, typed in of_types(subject, case):
        try:
            bound = subject.bind(STEPS, typed, subject.grid(case) if subject.is_class else EVEN).in_float64
            made = bound.respond(BOTH, bound.draws)
        except NOT_SUPPORTED:
            if subject.is_class:
                continue
            raise
        samples = [*(sample for _, sample in made.seen), made.output]
        found = [part for one in samples for part in (one.moments.mean, one.moments.variances.sqrt())]
        moments[name] = torch.cat(found)
        errors[name] = max(defect.size for defect in point_defects(made, bound.end_of(made)))
    return moments, errors


def _unlike(moments: Mapping[str, Tensor], errors: Mapping[str, float], allowed: float) -> dict[str, float]:
    """Return the prediction types whose moments are not those of most others, and how far they are off."""

    def apart(a: str, b: str) -> float:
        one, other = moments[a], moments[b]
        return distance(one, other) / max(1.0, other.abs().max().item()) if one.shape == other.shape else math.inf

    alike = {a: [b for b in moments if a == b or apart(a, b) <= allowed] for a in moments}
    if not alike:
        return {}
    true = max(alike, key=lambda a: (len(alike[a]), -errors[a]))
    return {a: apart(a, true) for a in moments if a not in alike[true]}


def clipping(subject: Subject) -> Outcome:
    """Clips its x0 estimates where the model's config says so, at the limit that it gives."""
    if subject.consistency:
        return skipped(CONSISTENCY)
    if VP not in subject.kinds:
        return skipped("is for models that do not clip")
    if subject.is_class and not subject.has_option("clip_sample"):
        return skipped("has no option for clipping")
    if subject.is_plan:
        return skipped("is a plan, which is for one model")
    if not exact_on_points(subject.bind(STEPS)):
        return skipped("is not exact where the data is a point")
    types = dict(of_types(subject, VP)) or {"": VP}
    for name, case in types.items():
        trained = case.training
        config = {**trained.scheduler_config, "clip_sample": True, "clip_sample_range": LIMIT}
        clipped = replace(case, training=replace(trained, clip=Clip(LIMIT), scheduler_config=config))
        try:
            fault = _unclipped(subject.bind(STEPS, clipped))
        except NOT_SUPPORTED:
            if subject.is_class:
                continue
            raise
        if fault:
            return failed(f"{fault}, for networks that predict {name}" if name else fault)
    return passed(f"clips its x0 estimates where the model does (tried at {LIMIT:g})")


def _unclipped(bound: Bound) -> str:
    """Return how a run without noise on points beyond the limit shows that an estimate was not clipped; or empty."""
    data = Points(BEYOND * random_points().x0)
    level, scale = bound.first_level()
    start = (level.alpha * data.x0 + level.sigma * bound.start() / bound.start_std) / scale
    walked = bound.walk(data, start=start, noise=lambda: torch.zeros_like(start))
    kept = data.x0.clamp(-LIMIT, LIMIT)
    for k, ((before, u), (here, x)) in enumerate(pairwise(walked.seen), start=1):
        noise, left = (u - before.alpha * data.x0) / before.sigma, x - here.alpha * data.x0
        weight = (left * noise).sum() / noise.square().sum()
        along = distance(left, weight * noise) <= SINGLE * here.sigma
        if along and 0 <= weight <= here.sigma * (1 + SINGLE) and here.ratio < before.ratio:
            return f"does not clip the x0 estimate of evaluation {k}"
    error = distance(walked.output, kept) - bound.left_over
    if error <= max(bound.output_tolerance, SAME):
        return ""
    if distance(walked.output, data.x0) - bound.left_over <= max(bound.output_tolerance, SAME):
        return f"does not clip its x0 estimates: the output goes up to {walked.output.abs().max().item():.2g}"
    return f"wrong where the model clips: off by {error:.1e} where the data is a point beyond the limit of {LIMIT:g}"
