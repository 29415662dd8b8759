"""The checks of ``python -m diffexp.certify`` as a pytest suite, for the tests of a plugin.

    from diffexp.testing import certificate_of

    TestMine = certificate_of("mine", gamma=1.5)

pytest then shows one test per check: ``TestMine::test_order``, ``TestMine::test_batch``, and so on. A check that does
not apply is skipped with its reason.
"""

from collections.abc import Callable, Collection
from functools import cache
from typing import Any

import pytest

from diffexp.certify import CHECKS, Verdict, run_check, subject_of
from diffexp.errors import InputError


def certificate_of(scheduler: Any, *, without: Collection[str] = (), **options: Any) -> type:
    """Return a class of tests, one per check.

    Args:
        scheduler: the name of an option ("mine"), a function, a diffusers-style class or object, or a plan.
        without: names of checks to skip.
        **options: the scheduler's own.

    Raises:
        ValueError: ``without`` contains a name that is no check.
    """
    unknown = sorted(set(without) - set(CHECKS))
    if unknown:
        raise ValueError(f"there is no check {unknown[0]!r}; the checks are {', '.join(CHECKS)}")

    @cache
    def subject() -> Any:  # made by the first test, so that collecting them costs nothing
        return subject_of(scheduler, options=options)

    tests = {f"test_{check}": _test(check, subject) for check in CHECKS if check not in without}
    name = scheduler if isinstance(scheduler, str) else getattr(scheduler, "__name__", type(scheduler).__name__)
    return type("TestCertificate", (), {"__doc__": f"The certificate of {name}.", **tests})


def _test(check: str, subject: Callable[[], Any]) -> Callable[[Any], None]:
    def test(self: Any) -> None:
        try:
            outcome = run_check(check, subject())
        except InputError as error:
            pytest.fail(str(error), pytrace=False)
        if outcome.failed:
            pytest.fail(outcome.sentence, pytrace=False)
        if outcome.verdict is Verdict.SKIPPED:
            pytest.skip(outcome.sentence)

    test.__doc__ = CHECKS[check].__doc__
    return test
