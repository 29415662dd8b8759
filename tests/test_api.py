"""Calls from Python: mistakes raise the one line of the command line, and classes may name their parameters freely."""

from collections.abc import Callable
from typing import Any

import diffusers
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


def test_a_class_may_call_the_number_of_steps_what_it_likes() -> None:
    class Renamed(diffusers.DDIMScheduler):
        def set_timesteps(self, n: int, device: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().set_timesteps(n, device)

    plan = diffexp.compile(diffusers.DDIMScheduler, steps=4)
    for renamed in (Renamed, Renamed()):
        assert diffexp.compile(renamed, steps=4).difference(plan) < 1e-12
