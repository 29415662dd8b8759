"""Intervals of means: how often they hold the true mean, simulated; and their form at the borders."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffexp.components.metrics.half_samples import estimate, mean_of
from diffexp.components.metrics.intervals import mean_interval, student_interval

RUNS = 20_000
COUNTS = (16, 24, 32, 48, 64)


def drawn(name: str, count: int) -> tuple[Tensor, float]:
    """Values [RUNS, count] and their true mean."""
    generator = torch.Generator().manual_seed(count)
    normal = torch.randn(RUNS, count, generator=generator, dtype=torch.float64)
    uniform = torch.rand(RUNS, count, generator=generator, dtype=torch.float64)
    made: dict[str, Callable[[], tuple[Tensor, float]]] = {
        "normal": lambda: (normal, 0.0),
        "lognormal": lambda: (normal.exp(), math.exp(0.5)),
        "negative lognormal": lambda: (-normal.exp(), -math.exp(0.5)),
        "exponential": lambda: (-uniform.log(), 1.0),
        "bernoulli": lambda: ((uniform < 0.1).double(), 0.1),
        "two values": lambda: (3.0 + 4.0 * (uniform < 0.1), 3.4),
    }
    return made[name]()


def coverage(name: str, count: int) -> float:
    values, mean = drawn(name, count)
    low, high = mean_interval(values)
    return ((low <= mean) & (mean <= high)).double().mean().item()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["normal", "lognormal", "negative lognormal", "exponential"])
def test_intervals_cover_the_mean_as_often_as_they_claim(name: str, count: int):
    assert 0.935 < coverage(name, count) < 0.97


@pytest.mark.parametrize("count", [16, 20, 28, 32, 40, 48, 56, 64])
def test_intervals_of_a_proportion_cover_it_as_often_as_whole_numbers_allow(count: int):
    assert 0.93 - 0.005 < coverage("bernoulli", count) < 0.97 + 0.005


def test_what_can_be_had_at_24_is_a_jump_above():
    """With 24 draws at a tenth the coverage is 97.2 % if 0 to 5 successes include it, 89 % if 1 to 5 do."""
    assert coverage("bernoulli", 24) == pytest.approx(0.972, abs=0.005)


def test_any_two_values_are_a_proportion():
    """A sample that has only one of them does not tell the other."""
    assert coverage("two values", 32) == pytest.approx(coverage("bernoulli", 32) - 0.9**32, abs=0.01)


def test_no_success_in_16_still_has_a_width():
    low, high = mean_interval(torch.zeros(16))
    assert (low.item(), high.item()) == (pytest.approx(0.0, abs=1e-12), pytest.approx(0.194, abs=0.001))  # Wilson 1927
    low, high = mean_interval(torch.ones(16))
    assert (low.item(), high.item()) == (pytest.approx(0.806, abs=0.001), pytest.approx(1.0))


def test_a_constant_has_no_width():
    assert [end.item() for end in mean_interval(torch.full((20,), 3.5))] == [3.5, 3.5]


def test_intervals_move_with_the_unit_of_the_values():
    values = torch.randn(30, generator=torch.Generator().manual_seed(3), dtype=torch.float64).exp()
    low, high = mean_interval(values)
    scaled_low, scaled_high = mean_interval(-10 * values + 7)
    assert (scaled_low.item(), scaled_high.item()) == pytest.approx((-10 * high.item() + 7, -10 * low.item() + 7))


def test_symmetric_values_have_students_interval():
    values = torch.linspace(-1, 1, 21, dtype=torch.float64)
    assert [end.item() for end in mean_interval(values)] == pytest.approx(student_interval(values.tolist()))
    assert student_interval([1.0, 2.0, 3.0])[1] == pytest.approx(2 + 4.302653 / math.sqrt(3))  # table of t


def test_an_estimate_of_a_mean_has_this_interval():
    values = torch.randn(40, generator=torch.Generator().manual_seed(5)).exp()
    low, high = mean_interval(values)
    assert estimate(mean_of(values), range(40)).interval == (low.item(), high.item())
    assert estimate(mean_of(torch.full((40,), torch.nan)), range(40)).interval is None
