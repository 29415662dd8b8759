"""The cause of a failed check: another check that fails for a more general reason, or the timestep of the network."""

from collections.abc import Callable, Mapping

from diffexp.certify.outcome import Outcome, failed
from diffexp.certify.subject import Subject

RunCheck = Callable[[str, Subject], Outcome]

OF_THEMSELVES = frozenset({"deterministic", "inputs", "reuse", "batch", "told", "cost", "parity", "same_table"})
"""Checks whose failures have no more general cause."""
GENERAL: Mapping[str, Callable[[str, Subject, Outcome], bool]] = {
    **dict.fromkeys(("deterministic", "inputs", "reuse", "batch"), lambda check, subject, found: True),
    "sizes": lambda check, subject, found: True,
    "predictions": lambda check, subject, found: bool(_types(check, subject) & set(found.numbers.get("wrong", ()))),
    "step_counts": lambda check, subject, found: not found.numbers.get("everywhere"),
    "point": lambda check, subject, found: True,
}
"""Checks that may fail for the cause of other failures, the most general first, and when they do."""


def explained(check: str, subject: Subject, outcome: Outcome, run_check: RunCheck) -> Outcome:
    """Return a failure under its cause, if that is not the one that the check itself is about.

    Whether the timestep is the cause is tried out where the scheduler's own levels are known: the check is run again
    with a network that uses these, whatever timestep it gets.
    """
    if not outcome.failed or check in OF_THEMSELVES or subject.trusting:
        return outcome
    timesteps = run_check("told", subject)
    if timesteps.failed and (timesteps.numbers.get("read") or not run_check(check, subject.trusted).failed):
        return _because("told", timesteps, outcome)
    for name, explains in GENERAL.items():
        if name == check:
            return outcome
        found = run_check(name, subject)
        if found.failed and explains(check, subject, found):
            return _because(name, found, outcome)
    return outcome


def _because(name: str, cause: Outcome, outcome: Outcome) -> Outcome:
    return failed(f"{cause.sentence} (`{name}`); here: {outcome.sentence}", **outcome.numbers)


def _types(check: str, subject: Subject) -> set[str]:
    """Return the prediction types of the networks that a check uses."""
    several = check in ("point", "kinds", "ends", "timesteps")
    cases = subject.kinds if several else [subject.reference_case]
    return {case.training.prediction.value for case in cases}
