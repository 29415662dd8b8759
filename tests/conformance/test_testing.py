"""The suite that plugin authors import, as they use it, and on a plugin with a fault."""

import pytest

from diffexp.certify import CHECKS
from diffexp.testing import certificate_of
from tests.certify.faulty.behaviour import nan_at_the_end

TestGradientEstimation = certificate_of("gradient_estimation", gamma=1.5, without=["parity", "strong_order", "told"])


def test_there_is_a_test_for_every_check() -> None:
    made = certificate_of("euler")
    assert [name for name in vars(made) if name.startswith("test_")] == [f"test_{check}" for check in CHECKS]
    assert not hasattr(TestGradientEstimation, "test_parity")


def test_a_fault_fails_the_test_of_its_check_with_the_reason() -> None:
    faulty = certificate_of(nan_at_the_end)()
    with pytest.raises(pytest.fail.Exception, match="the last step, to sigma = 0, gives nan"):
        faulty.test_ends()  # pyright: ignore[reportAttributeAccessIssue]
    faulty.test_batch()  # pyright: ignore[reportAttributeAccessIssue]


def test_what_does_not_apply_is_skipped() -> None:
    with pytest.raises(pytest.skip.Exception, match="not applicable: draws no noise"):
        certificate_of("euler")().test_strong_order()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_wrong_name_is_told_by_the_test_and_a_wrong_check_at_once() -> None:
    with pytest.raises(pytest.fail.Exception, match="did you mean 'euler'"):
        certificate_of("eulr")().test_order()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="there is no check 'ordr'"):
        certificate_of("euler", without=["ordr"])
