"""Mistakes in calls from Python are told as those on the command line are."""

from collections.abc import Callable
from typing import Any

import pytest

import diffexp
from diffexp.errors import InputError

CALLS: dict[str, Callable[[], Any]] = {
    "steps=2.5 is not an integer": lambda: diffexp.compile("ddim", steps=2.5),  # pyright: ignore[reportArgumentType]
    "steps=True is not an integer": lambda: diffexp.compile("ddim", steps=True),
    "42 is no scheduler: give a name, a function, a class or an instance": lambda: diffexp.compile(42, steps=5),
    "scheduler.eta=nan is not a number": lambda: diffexp.compile("ddim", steps=5, eta=float("nan")),
    'give a list of words, as in diffexp.run(["steps=2"])': lambda: diffexp.run("steps=2"),  # pyright: ignore
    "a sweep is started from the command line": lambda: diffexp.run(["-m", "steps=2,3"]),
}


@pytest.mark.parametrize("expected", CALLS)
def test_a_mistake(expected: str) -> None:
    with pytest.raises(InputError) as caught:
        CALLS[expected]()
    assert expected in str(caught.value)
