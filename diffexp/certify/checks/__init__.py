"""All checks in order, and the certificate that they make."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from diffexp.certify.checks.behaviour import (
    batch,
    deterministic,
    few_steps,
    inputs,
    middle_start,
    reuse,
    timesteps,
)
from diffexp.certify.checks.causes import explained
from diffexp.certify.checks.cost import cost
from diffexp.certify.checks.exact_error import exact_error
from diffexp.certify.checks.first_and_last_step import first_and_last_step
from diffexp.certify.checks.grids import grids, kinds
from diffexp.certify.checks.local_error import local_error
from diffexp.certify.checks.models import clipping, predictions
from diffexp.certify.checks.order import order, strong_order
from diffexp.certify.checks.parity import parity, same_table
from diffexp.certify.checks.point_data import point_data
from diffexp.certify.checks.precision import precision
from diffexp.certify.checks.sizes import sizes
from diffexp.certify.checks.step_counts import step_counts
from diffexp.certify.checks.told import told
from diffexp.certify.outcome import Certificate, Outcome, failed, skipped
from diffexp.certify.runs import quiet
from diffexp.certify.subject import Subject, subject_of
from diffexp.errors import InputError
from diffexp.experiment.provenance import installed_versions

Check = Callable[[Subject], Outcome]

CHECKS: Mapping[str, Check] = {
    "deterministic": deterministic,
    "batch": batch,
    "sizes": sizes,
    "inputs": inputs,
    "reuse": reuse,
    "few_steps": few_steps,
    "step_counts": step_counts,
    "timesteps": timesteps,
    "told": told,
    "middle_start": middle_start,
    "ends": first_and_last_step,
    "point": point_data,
    "predictions": predictions,
    "clipping": clipping,
    "even": local_error,
    "order": order,
    "grids": grids,
    "kinds": kinds,
    "strong_order": strong_order,
    "exact_error": exact_error,
    "precision": precision,
    "cost": cost,
    "parity": parity,
    "same_table": same_table,
}
"""Every check by its name in certificates, in the order in which they run."""

SAMPLING = frozenset(CHECKS) - {"deterministic", "batch", "sizes", "inputs", "reuse", "cost"}
"""Checks that apply only to samplers, which run from noise to data."""

OF_LEVELS = frozenset(
    ("few_steps", "step_counts", "timesteps", "told", "middle_start", "even", "order", "grids", "kinds", "strong_order")
)
"""Checks of what a scheduler does with levels and numbers of steps that are given."""


def certify(scheduler: Any, *, name: str | None = None, **options: Any) -> Certificate:
    """Run all checks on one scheduler.

    Args:
        scheduler: the name of an option, a function, a diffusers-style class or object, or a plan.
        name: for the page; by default the scheduler's own.
        **options: the scheduler's.

    Raises:
        InputError: there is no such scheduler or option, or it accepts no kind of model.
    """
    subject = subject_of(scheduler, name, options)
    subject.bind(4)  # raises where it accepts no kind of model
    began = time.perf_counter()
    outcomes = {check: run_check(check, subject) for check in CHECKS}
    return Certificate(subject.name, dict(subject.options), outcomes, time.perf_counter() - began, versions())


def run_check(check: str, subject: Subject) -> Outcome:
    """Run one check, once for a subject; an exception of the scheduler is a failure."""
    if check not in subject.outcomes:
        outcome = _run(check, subject)
        subject.outcomes[check] = outcome
        subject.outcomes[check] = explained(check, subject, outcome, run_check)
    return subject.outcomes[check]


def _run(check: str, subject: Subject) -> Outcome:
    if subject.is_inversion and check in SAMPLING:
        return skipped("runs from data to noise")
    if subject.is_finished and check in OF_LEVELS:
        return skipped("is a finished plan, with levels and a number of evaluations of its own: it has no order")
    try:
        with quiet():
            return CHECKS[check](subject)
    except InputError as error:
        return failed(f"refuses: {error}")
    except Exception as error:  # a scheduler under test may raise anything
        return failed(f"raises {subject.describe_error(error)}")


def versions() -> dict[str, str]:
    """Versions of the packages that the result may depend on."""
    installed = installed_versions()
    return {package: installed.get(package, "not installed") for package in ("diffexp", "diffusers", "torch")}
