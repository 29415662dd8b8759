"""How often intervals hold the true value, and how often equal cells differ: 500 values of KID, of simulated features.

A share of 95 % of 500 scatters by 1 %, so that the bounds are two of these around 93 to 97 % and 4 to 6 %; pairs are
half as many. ``tests/benchmarks/bench_intervals.py`` has more distributions and numbers of samples.
"""

import pytest
import torch

from diffexp.components.metrics.fid import FID
from diffexp.components.metrics.intervals import influence_interval, mean_interval, pair_mean_error
from diffexp.components.metrics.kid import KID
from tests.simulated import draws, simulate


@pytest.mark.parametrize(
    ("name", "count", "scale"),
    [
        ("normal", 64, 1.0),
        ("normal", 64, 1.3),
        ("normal", 256, 1.0),
        ("correlated", 64, 1.0),
        ("heavy-tailed", 64, 1.0),
    ],
)
def test_intervals_and_pairs_of_kid(name: str, count: int, scale: float):
    found = simulate(KID, name, count, 250, scale)
    assert 0.91 <= found.covered <= 0.985
    assert found.independent <= 0.09 and found.paired <= 0.09
    assert found.independent + found.paired >= 0.02  # not as careful as a bootstrap, which finds none


@pytest.mark.slow
def test_intervals_and_pairs_of_fid():
    """Of 250 values, a tenth of a second each, so that a share of 95 % scatters by 1.4 %."""
    found = simulate(FID, "normal", 64, 125)
    assert 0.90 <= found.covered <= 0.995
    assert found.independent <= 0.10 and found.paired <= 0.10
    assert found.independent + found.paired >= 0.02


@pytest.mark.parametrize("count", [64, 500, 2000])
@pytest.mark.parametrize("name", ["normal", "heavy-tailed"])
def test_the_error_of_a_mean_over_pairs_is_right_and_covers(name: str, count: int):
    """Of (x_i + x_j) / 2 + x_i x_j, whose mean is 0: linear and of second order."""
    values = draws(name, (500, count), torch.Generator().manual_seed(count))
    total, squares = values.sum(dim=1, keepdim=True), values.square().sum(dim=1, keepdim=True)
    others, their_squares = total - values, squares - values.square()
    sums = (count - 1) * values / 2 + others / 2 + values * others
    # (x / 2 + y (1 / 2 + x))^2 summed over the others y
    square_sums = (
        (count - 1) * values.square() / 4 + values * (0.5 + values) * others + (0.5 + values).square() * their_squares
    )
    means = sums.sum(dim=1) / (count * (count - 1))
    errors = torch.tensor([pair_mean_error(*one) for one in zip(sums, square_sums)])
    if name == "normal":
        assert errors.square().mean() == pytest.approx(means.var().item(), rel=0.15)
    ends = [
        influence_interval(mean.item(), 2 * own / (count - 1), error.item())
        for mean, own, error in zip(means, sums, errors)
    ]
    assert 0.91 <= sum(low <= 0 <= high for low, high in ends) / 500 <= 0.985


def test_the_interval_of_a_mean_is_that_of_its_influences():
    values = torch.randn(40, generator=torch.Generator().manual_seed(5), dtype=torch.float64).exp()
    expected = [end.item() for end in mean_interval(values)]
    error = values.std().item() / 40**0.5
    found = influence_interval(values.mean().item(), values, error, freedom=39)
    assert found[1] == pytest.approx(expected[1]) and max(found[0], values.min().item()) == pytest.approx(expected[0])


def test_without_error_or_influence_there_is_no_skewness():
    assert influence_interval(2.0, torch.arange(9.0), 0.0) == (2.0, 2.0)
    low, high = influence_interval(2.0, torch.zeros(9), 1.0)
    assert low == pytest.approx(2 - 2.306004) and high == pytest.approx(2 + 2.306004)  # table of t
