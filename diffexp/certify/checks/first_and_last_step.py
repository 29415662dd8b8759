"""The first step and the last: where there is no signal yet, and where there is no noise any more."""

import math

import torch
from torch import Tensor

from diffexp.certify.cases import CASES, ZERO_SNR, Case
from diffexp.certify.checks.point_data import end_of
from diffexp.certify.outcome import Outcome, failed, passed, warned
from diffexp.certify.runs import Walk, moments, point_error, usual_walk
from diffexp.certify.subject import FLOW, Subject
from diffexp.errors import InputError
from diffexp.plan.moments import POINT

STEPS = 5


def ends(subject: Subject) -> Outcome:
    """Finite to the clean end on every kind of levels, and from a start without signal."""
    cases = [subject.home] if subject.is_class else list(CASES.values())
    for case in cases:
        if case is FLOW and case is not subject.home:
            continue
        for steps in (1, 2, STEPS):
            try:
                walked = usual_walk(subject.bind(steps, case))
            except InputError as error:
                if case is subject.home and steps == STEPS:
                    return failed(f"refuses {case.name} levels: {error}")
                continue
            except Exception as error:  # whatever code does that has not met such a level
                if case is not subject.home:
                    continue  # the check on point data tells
                return failed(f"with {steps} steps on {case.name} levels it raises {subject.blame(error)}")
            told = _not_finite(walked)
            if told:
                return failed(f"{told}, with {steps} steps on {case.name} levels")
    found = "finite to the clean end"
    left = _left_over(subject)
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


def _left_over(subject: Subject) -> float:
    """Standard deviation of the noise in the output of a class that stops above the clean end; 0 where none does."""
    if not subject.is_class:
        return 0.0
    bound = subject.bind(STEPS, subject.home)
    return end_of(bound, moments(bound.widened, POINT)).sigma


def _not_finite(walked: Walk) -> str:
    """Where a run stops being finite; empty where it never does."""
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
    """What is wrong with a start at alpha = 0; empty where nothing is, or where the scheduler is for no such model."""
    try:
        bound = subject.bind(STEPS, case)
    except InputError:
        return ""
    except Exception as error:  # as below
        return f"{case.name}: {type(error).__name__}: {error}"
    try:
        error = point_error(bound)
    except Exception as raised:  # a division by alpha, mostly
        return f"{case.name}: {type(raised).__name__}: {raised}"
    if not math.isfinite(error):
        return f"{case.name}: {_not_finite(usual_walk(bound)) or 'not finite'}"
    if error > (2e-3 if subject.is_class else 1e-6):
        return f"wrong by {error:.1e} where the data is a point, from a start without signal ({case.name})"
    return ""
