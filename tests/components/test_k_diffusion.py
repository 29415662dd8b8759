"""The noise that samplers of k-diffusion ask for by interval."""

import math

import pytest
import torch
from torch import Tensor

from diffexp.components.schedulers.foreign.k_diffusion import BrownianPath

DRAWS = 40000


@pytest.fixture
def path() -> BrownianPath:
    generator = torch.Generator().manual_seed(0)
    return BrownianPath(lambda: torch.randn(DRAWS, generator=generator, dtype=torch.float64))


def correlation(a: Tensor, b: Tensor) -> float:
    return float((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt())


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(9.0, 4.0), (4.0, 1.0)], 0.0),  # one step after another
        ([(9.0, 4.0), (9.0, 1.0)], math.sqrt(5 / 8)),  # a middle stage, and its step
        ([(9.0, 1.0), (9.0, 4.0)], math.sqrt(5 / 8)),  # the other way about: a bridge
        ([(9.0, 1.0), (4.0, 1.0)], math.sqrt(3 / 8)),
        ([(9.0, 4.0), (6.0, 2.0)], 2 / math.sqrt(5 * 4)),  # they overlap from 6 to 4
        ([(9.0, 4.0), (4.0, 9.0)], 1.0),  # the same interval
        ([(9.0, 4.0), (9.0 * (1 + 1e-7), 4.0)], 1.0),  # the same but for rounding in float32
        ([(9.0, 4.0), (20.0, 9.0)], 0.0),  # after a restart
        ([(9.0, 4.0), (20.0, 1.0)], 0.0),
        ([(9.0, 4.0), (2.0, 1.0)], 0.0),  # a gap between them
    ],
)
def test_intervals_share_what_they_have_in_common(path: BrownianPath, intervals: list, expected: float) -> None:
    first, second = (path(torch.tensor(high), low) for high, low in intervals)
    for found in (first, second):
        assert float(found.mean()) == pytest.approx(0, abs=0.02)
        assert float(found.square().mean()) == pytest.approx(1, abs=0.03)
    assert correlation(first, second) == pytest.approx(expected, abs=0.02)


def test_parts_of_a_step_add_up_to_it(path: BrownianPath) -> None:
    whole = path(9.0, 1.0)
    parts = [math.sqrt(high - low) * path(high, low) for high, low in ((9.0, 5.0), (5.0, 2.0), (2.0, 1.0))]
    assert torch.allclose(sum(parts, torch.zeros(DRAWS)), math.sqrt(8) * whole)


def test_without_an_interval_it_is_fresh_noise(path: BrownianPath) -> None:
    step = path(9.0, 4.0)
    for fresh in (path(), path(4.0, 4.0)):
        assert correlation(fresh, step) == pytest.approx(0, abs=0.02)


def test_many_steps_are_not_all_remembered(path: BrownianPath) -> None:
    path.noise = lambda: torch.zeros(1)
    for sigma in range(100, 0, -1):
        path(sigma, sigma - 0.5)
        path(sigma, sigma - 1)
    assert len(path.pieces) <= 8
