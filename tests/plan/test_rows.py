"""A row is the shortest combination of what came before that is the traced update, near or far back."""

import math
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import diffexp
from diffexp.api import own_training
from diffexp.components.sampler import bind
from diffexp.plan.compile import run_directly
from diffexp.plan.execute import execute
from diffexp.plan.levels import Level
from diffexp.plan.trace import NotLinear


def network(u: Tensor, level: Level) -> Tensor:
    return torch.tanh(0.8 * u + math.sin(0.01 * level.timestep))


def remembering(denoise: Any, x: Tensor, levels: Any, noise: Any, *, ages: tuple[int, ...]) -> Tensor:
    """Euler's method, which at the end goes back to the oldest of some samples and adds an output of each age."""
    xs: list[Tensor] = []
    ms: list[Tensor] = []
    for here, there in levels.pairs():
        xs, ms = [x, *xs], [denoise.predict(x, here)[1], *ms]
        x = there.alpha * (x / here.alpha + (there.ratio - here.ratio) * ms[0])
    return xs[max(ages)] + sum(math.cos(age) * ms[age] for age in ages)


def test_an_update_may_read_a_few_outputs_from_far_back() -> None:
    row = diffexp.compile("pndm", steps=20, start="runge_kutta").rows[12]  # the first after the Runge-Kutta start
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
    """At the end of LMS an output has a weight smaller than the rest by ten orders; it is not to be dropped."""
    assert diffexp.compile("diffusers/lms", steps=3).nfe == 3


def test_the_size_of_one_output_hides_no_other() -> None:
    """At high noise the first coefficients are 4e4, and float32 leaves 1e-3 of them unsure; later ones are about 1."""
    options = {"beta_schedule": "squaredcos_cap_v2", "lower_order_final": False}
    scheduler: Any = diffusers.DPMSolverMultistepScheduler(**options)
    plan = diffexp.compile(scheduler, steps=21)
    start = torch.randn(1, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    method = bind(scheduler, steps=21, training=own_training(scheduler, {}))
    direct = run_directly(method, network, start, lambda: start)
    assert (execute(plan, network, start, lambda: start) - direct).abs().max() < 1e-4 * direct.abs().max()
