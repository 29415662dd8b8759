"""Faults under one condition only: found, and with the true reason."""

import re
from typing import Any

import pytest

from diffexp.certify import certify, run_check, subject_of
from tests.certify.faulty import conditional_classes as classes
from tests.certify.faulty.conditional import CONDITIONAL

FAULTS = [*CONDITIONAL, *((faulty, *found) for faulty, found in classes.FAULTY.items())]


@pytest.mark.parametrize(("faulty", "check", "reason"), FAULTS, ids=[faulty.__name__ for faulty, _, _ in FAULTS])
def test_a_fault_under_one_condition_fails_with_the_reason(faulty: Any, check: str, reason: str) -> None:
    outcome = run_check(check, subject_of(faulty))
    assert outcome.failed, outcome.sentence
    assert re.search(reason, outcome.sentence), outcome.sentence


def test_a_right_class_with_options_passes() -> None:
    certificate = certify(classes.OptionsDDIM)
    assert certificate.failures == {}
    assert {"told", "step_counts", "predictions", "clipping", "sizes"} <= {
        name for name, outcome in certificate.outcomes.items() if outcome.verdict.value == "passed"
    }
