"""A row is the shortest combination of what came before that is the traced update, near or far back."""

import math
from typing import Any

import pytest
from torch import Tensor

import diffexp
from diffexp.plan import NotLinear


def remembering(denoise: Any, x: Tensor, levels: Any, noise: Any, *, ages: tuple[int, ...]) -> Tensor:
    """Euler's method, which at the end goes back to the oldest of some samples and adds an output of each age."""
    xs: list[Tensor] = []
    ms: list[Tensor] = []
    for here, there in levels.pairs():
        xs, ms = [x, *xs], [denoise.predict(x, here)[1], *ms]
        x = there.alpha * (x / here.alpha + (there.ratio - here.ratio) * ms[0])
    return xs[max(ages)] + sum(math.cos(age) * ms[age] for age in ages)


def test_an_update_may_read_a_few_outputs_from_far_back() -> None:
    row = diffexp.compile("pndm", steps=20).rows[12]  # the first after the Runge-Kutta start
    assert [age for age, weight in enumerate(row.m) if weight] == [0, 4, 8, 12]
    assert len(row.x) == 1
    last = diffexp.compile(remembering, steps=20, ages=(0, 9, 15)).rows[-1]
    assert [age for age, weight in enumerate(last.m) if weight] == [0, 9, 15]
    assert sum(weight != 0 for weight in last.x) == 1


def test_but_not_all_of_them() -> None:
    assert diffexp.compile(remembering, steps=16, ages=tuple(range(16))).depth == 15
    with pytest.raises(NotLinear, match="no combination of a few past samples and outputs"):
        diffexp.compile(remembering, steps=40, ages=tuple(range(40)))


def test_a_tiny_coefficient_is_no_rounding() -> None:
    """At the end of LMS; it is smaller than the rest by ten orders of magnitude."""
    last = diffexp.compile("diffusers/lms", steps=3).rows[-1]
    assert last.x == (1.0,) and 1e-9 < abs(last.m[2]) < 1e-8
