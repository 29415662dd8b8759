"""Certificates: right schedulers pass, faulty ones fail with the right reason."""

import pytest

from diffexp.certify import CHECKS, certify, run_check, subject_of
from tests.faulty.classes import FAULTY, SimpleDDIM
from tests.faulty.functions import FAULTS, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.scheduler.__name__)
def test_a_planted_fault_fails_its_check_with_the_reason(fault: Fault) -> None:
    outcome = run_check(fault.check, subject_of(fault.scheduler))
    assert outcome.failed, outcome.sentence
    import re

    assert re.search(fault.told, outcome.sentence), outcome.sentence
