"""The first step, where there may be no signal yet, and the last, to where there is no noise."""

import math

import torch
from torch import Tensor

from diffexp.certify.cases import CASES, VELOCITY, ZERO_SNR, Case
from diffexp.certify.outcome import Outcome, failed, passed, warned
from diffexp.certify.runs import Walk
from diffexp.certify.spacing import EVEN
from diffexp.certify.subject import FLOW, Subject
from diffexp.components.grids.choice import Grid
from diffexp.errors import InputError
from diffexp.plan.moments import POINT

STEPS = 5


def first_and_last_step(subject: Subject) -> Outcome:
    """Finite to the clean end on every kind of levels, and from a start without signal."""
    cases = [subject.reference_case] if subject.is_class else list(CASES.values())
    for case in cases:
        if case is FLOW and case is not subject.reference_case:
            continue
        for steps in (1, 2, STEPS):
            try:
                walked = subject.bind(steps, case).usual_walk
            except InputError as error:
                if case is subject.reference_case and steps == STEPS:
                    return failed(f"refuses {case.name} levels: {error}")
                continue
            except Exception as error:  # code that was not written for such a level may raise anything
                if case is not subject.reference_case:
                    continue  # reported by the check on point data
                return failed(f"with {steps} steps on {case.name} levels it raises {subject.describe_error(error)}")
            if place := _not_finite(walked):
                return failed(f"{place}, with {steps} steps on {case.name} levels")
    found = "finite to the clean end"
    bound = subject.bind(STEPS)
    left = bound.end_of(bound.in_float64.moments(POINT)).sigma if subject.is_class else 0.0
    if left:
        found = f"finite, but not to the clean end: noise of standard deviation {left:.2g} is left"
    limits = [ZERO_SNR] if subject.is_class else [ZERO_SNR, FLOW]
    if subject.consistency:
        return passed(found)
    if subject.in_k_diffusion_convention:
        return passed(f"{found}; k-diffusion's convention has no sigma for a start without signal")
    notes = [note for case in limits if (note := _from_nothing(subject, case))]
    wrong = [note for note in notes if note.startswith("wrong")]
    if wrong:
        return failed(f"{found}, but {wrong[0]}")
    if left and not notes:
        return warned(found, left_over=left)
    if notes:
        return warned(f"{found}; from a start without signal (alpha = 0) not: {'; '.join(notes)}")
    return passed(f"{found}, and right from a start without signal")


def _not_finite(walked: Walk) -> str:
    """Return where a run stops being finite; an empty string if it never does."""
    values: list[tuple[str, Tensor]] = []
    for index, (level, u) in enumerate(walked.seen):
        step = f"the update after evaluation {index} gives" if index else "the first evaluation sees"
        values.append((f"{step} {{}} (at sigma {level.ratio:.3g})", u))
    values.append(("the last step, to sigma = 0, gives {}", walked.output))
    for sentence, value in values:
        if not bool(value.isfinite().all()):
            return sentence.format("nan" if bool(torch.isnan(value).any()) else "inf")
    return ""


def _from_nothing(subject: Subject, case: Case) -> str:
    """Return what is wrong with a start at alpha = 0; empty if nothing is, or if the scheduler refuses such a model."""
    try:
        bound = subject.bind(STEPS, case)
    except InputError:
        return ""
    except Exception as error:  # as below
        return f"{case.name}: {type(error).__name__}: {error}"
    try:
        error = bound.point_error()
    except Exception as raised:  # a division by alpha, mostly
        return f"{case.name}: {type(raised).__name__}: {raised}"
    if not math.isfinite(error):
        return f"{case.name}: {_not_finite(bound.usual_walk) or 'not finite'}"
    if error > bound.output_tolerance and _right_with_signal(subject, case):
        return f"wrong by {error:.1e} where the data is a point, from a start without signal ({case.name})"
    return ""


def _right_with_signal(subject: Subject, case: Case) -> bool:
    """Whether such networks are sampled right where there is signal: what is wrong then is the start without."""
    ordinary = VELOCITY if case is ZERO_SNR else case
    bound = subject.bind(STEPS, ordinary, EVEN if subject.accepts(ordinary, EVEN) else Grid())
    return bound.point_error() <= bound.output_tolerance
