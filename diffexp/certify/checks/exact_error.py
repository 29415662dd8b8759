"""The exact error of a scheduler's samples: 2-Wasserstein distance to Gaussian data, in closed form."""

import math
from typing import Any

import torch

from diffexp.certify.bound import Bound
from diffexp.certify.data import spectra
from diffexp.certify.outcome import Outcome, failed, passed, skipped, warned
from diffexp.certify.subject import KARRAS, Subject
from diffexp.plan.moments import Gaussian, respond, started

STEPS = (5, 7, 10, 15, 20, 25, 50)
CLASS_STEPS = (5, 10, 20, 25, 50)
"""For classes of diffusers, which take milliseconds per step; 25 steps of two evaluations are 49 evaluations."""
FAR = 0.5
"""An error above this share of the data's own spread, at the most steps, means that the data is not sampled."""


def exact_error(subject: Subject) -> Outcome:
    """Distance to data with the spectrum of MNIST and of natural images, from the start of a usual run."""
    if subject.consistency:
        return skipped("a consistency method is not made for the posterior mean of a diffusion model")
    if reason := subject.bind(12).nonlinear:
        return skipped(f"{reason}, so that its output on Gaussian data is not Gaussian")
    grid = subject.grid(subject.reference_case, KARRAS)
    used = KARRAS if grid.name == KARRAS else "its own"
    both = spectra()
    steps_taken = CLASS_STEPS if subject.is_class else STEPS
    nfe, errors = [], {name: [] for name in both}
    for steps in steps_taken:
        evaluations, found = _distances(subject.bind(steps, subject.reference_case, grid), both)
        nfe.append(evaluations)
        for name, value in found.items():
            errors[name].append(value)
    numbers: dict[str, Any] = {
        "steps": list(steps_taken),
        "nfe": nfe,
        "grid": used,
        "unit": "standard deviation of the data",
    }
    numbers |= {f"w2_{name}": values for name, values in errors.items()}
    values = [value for found in errors.values() for value in found]
    if not all(map(math.isfinite, values)):
        return failed("the output on Gaussian data is not finite", **numbers)
    shown = ", ".join(f"{errors[name][-1]:.2g} {name}" for name in both)
    if max(found[-1] for found in errors.values()) > FAR:
        return failed(f"does not sample the data: 2-Wasserstein error {shown} at {nfe[-1]} evaluations", **numbers)
    outcome = passed(
        f"2-Wasserstein error over the data's spread: {shown} at {nfe[-1]} evaluations, grid {used}", **numbers
    )
    worse = [name for name, found in errors.items() if found[-1] > max(1.5 * min(found), 0.01)]
    if worse:
        return warned(f"{outcome.sentence}; more steps stop helping on {' and '.join(worse)}", **numbers)
    return outcome


def _distances(bound: Bound, data: dict[str, Gaussian]) -> tuple[int, dict[str, float]]:
    """Return (evaluations, 2-Wasserstein error over the root of the data's total variance)."""
    joined = Gaussian(
        torch.cat([one.mean for one in data.values()]), torch.cat([one.variances for one in data.values()])
    )
    start, target = started(bound.start_std), bound.case.training.prediction
    made = respond(bound.run_as_sampled, joined, start=start, target=target, draws=bound.draws)
    found, offset = {}, 0
    for name, truth in data.items():
        part = slice(offset, offset + len(truth.mean))
        moments = made.output.moments
        sample = Gaussian(moments.mean[part], moments.variances[part])
        found[name] = sample.wasserstein(truth) / math.sqrt(truth.variances.sum().item())
        offset += len(truth.mean)
    return len(made.seen), found
