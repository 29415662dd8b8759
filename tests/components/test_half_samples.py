"""Half-samples: intervals and pairs where the truth is known."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.feature_metric import FeatureMetric
from diffexp.components.metrics.features import load_features
from diffexp.components.metrics.fid import FID
from diffexp.components.metrics.fid_infinity import FIDInfinity
from diffexp.components.metrics.half_samples import FEWEST, SPLITS, Estimate, estimate, mean_of, splits, spread
from diffexp.components.metrics.intervals import t_quantile
from diffexp.components.metrics.mind import MIND, random_directions, sliced_squared_distances
from diffexp.report.comparison import p_value


def facts(count: int, captions: tuple[str, ...] = ()) -> RunFacts:
    unknown: dict[str, Any] = dict.fromkeys(("scheduler_us_per_step", "peak_memory_mb", "plan", "model"))
    return RunFacts(nfe=5, num_samples=count, seconds=1.0, model_seconds=1.0, captions=captions, **unknown)


def draws(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# splits


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=9, unique=True))
@settings(max_examples=20, deadline=None)
def test_of_two_neighbours_one_is_in_each_half(indices: list[int]):
    found = splits(indices)
    assert found.shape == (len(indices), SPLITS)
    places = sorted(range(len(indices)), key=indices.__getitem__)
    for first, second in zip(places[::2], places[1::2]):
        assert torch.equal(found[first], 1 - found[second])


def test_halves_do_not_depend_on_how_many_samples_there_are_nor_on_their_order():
    assert torch.equal(splits(range(100))[:40], splits(range(40)))
    assert torch.equal(splits([3, 1, 0, 2]), splits(range(4))[[3, 1, 0, 2]])
    assert not torch.equal(splits(range(2)), splits(range(2, 4)))


def test_neighbours_were_asked_for_the_same_thing():
    groups = ["a", "b", "c"] * 4
    found = splits(range(12), groups).double()
    for group in "abc":
        members = found[[place for place, own in enumerate(groups) if own == group]]
        assert torch.equal(members.sum(dim=0), torch.full((SPLITS,), 2.0, dtype=torch.float64))


def test_samples_that_were_asked_for_different_things_are_split_all_the_same():
    found = splits(range(6), list("abcdef"))
    assert torch.equal(found, splits(range(6)))
    assert torch.equal(splits(range(5), list("aabbc"))[:4], splits(range(4)))


# intervals


def test_the_interval_of_a_mean_is_as_wide_as_statistics_says():
    values = draws(400)
    found = estimate(mean_of(values), range(400))
    assert found.value == pytest.approx(values.mean().item())
    assert found.interval is not None
    low, high = found.interval
    assert high - low == pytest.approx(2 * 1.96 * values.std().item() / math.sqrt(400), rel=0.02)
    assert low < found.value < high
    variance, freedom = spread(found.halves, 400)
    assert variance.sqrt().item() == pytest.approx(values.std().item() / 20, rel=0.1)
    assert freedom.item() == pytest.approx(1 / (1 / SPLITS + 1 / 399), rel=0.3)


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_variance_is_right_on_average_whatever_the_statistic(power: int, shift: float):
    """That of the mean over splits, for powers of a mean of 20 values: of the square, the jackknife gives it twice."""
    estimates, values = [], []
    for trial in range(600):
        mean = mean_of(draws(20, seed=trial) + shift)
        halves = estimate(lambda weights, mean=mean: mean(weights) ** power, range(20)).halves
        centred = halves - halves.mean()
        estimates.append(-(centred[0] * centred[1]).mean())
        values.append(halves.mean())
    ratio = torch.stack(estimates).mean() / torch.stack(values).var()
    assert ratio.item() == pytest.approx(1.0, abs=0.2)
    if (power, shift) == (2, 0.0):
        assert torch.stack(values).var().item() == pytest.approx(2 / 20**2, rel=0.25)


def test_what_differs_between_groups_is_no_noise():
    """Each prompt has a value of its own, which runs of the same prompts share."""
    values, groups = torch.arange(8.0, dtype=torch.float64).repeat(20) + 0.1 * draws(160), [*range(8)] * 20
    apart, mixed = (spread(estimate(mean_of(values), range(160), groups=own).halves, 160)[0] for own in (groups, None))
    assert apart.sqrt().item() == pytest.approx(0.1 / math.sqrt(160), rel=0.15)
    assert mixed > 50 * apart


def test_a_value_that_does_not_vary_has_no_width():
    found = Estimate(2.0, torch.full((2, SPLITS), 3.0, dtype=torch.float64), 20)
    assert found.interval == (2.0, 2.0)


def test_an_interval_does_not_leave_the_range_of_its_value():
    halves = torch.stack([torch.linspace(-1, 1, SPLITS), -torch.linspace(-1, 1, SPLITS)]).double()
    low, high = Estimate(0.5, halves, 100, bounds=(0.0, math.inf)).interval or (math.nan, math.nan)
    assert low == 0.0 and 2.1 < high < 2.5
    low, high = Estimate(0.5, halves, 100, bounds=(0.0, 1.0)).interval or (math.nan, math.nan)
    assert (low, high) == (0.0, 1.0)


def test_few_samples_have_no_interval():
    few, enough = (estimate(mean_of(torch.rand(count)), range(count)) for count in (FEWEST - 1, FEWEST))
    assert few.interval is None and few.halves.shape == (2, 0)
    assert enough.interval is not None


def test_the_difference_of_runs_from_the_same_noise_is_known_better_than_either():
    luck = draws(100)
    first, second = (estimate(mean_of(luck + shift), range(100)) for shift in (0.0, 0.01))
    difference, _ = spread(first.halves - second.halves, 100)
    own, _ = spread(first.halves, 100)
    assert difference < 1e-12 < own


# distances of features


def value_of(kind: Callable[[], FeatureMetric], features: Tensor) -> Estimate:
    metric: Any = kind()
    metric.batches.append(features)
    (found,) = metric.compute(facts(len(features))).values()
    return found


def test_mind_of_as_many_samples_as_real_images_is_that_of_sorted_projections():
    real = load_features("mnist_cnn").reference.samples
    features = (1.2 * real + 0.1)[torch.randperm(len(real), generator=torch.Generator().manual_seed(0))]
    directions = random_directions(64, 20)
    sorted_ones = [(rows @ directions.T).double().sort(dim=0).values for rows in (features, real)]
    expected = (sorted_ones[0] - sorted_ones[1]).square().mean()
    one = torch.ones(len(real), 1)
    assert sliced_squared_distances(features, one, real, directions).item() == pytest.approx(expected.item(), rel=1e-5)
    assert sliced_squared_distances(real, one, real, directions).item() == pytest.approx(0.0, abs=1e-6)


def test_mind_of_weighted_points_is_that_of_the_points_that_they_stand_for():
    """Of 3 points on a line, and 2 of them, to 4: as if each was there 4 or 6 times."""
    own, real, line = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[1.0], [1.5], [2.0], [7.0]]), torch.ones(1, 1)
    found = sliced_squared_distances(own, torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), real, line)
    for value, points in zip(found.tolist(), ([0.0, 1.0, 5.0], [0.0, 5.0])):
        many = torch.tensor(points).repeat_interleave(12 // len(points))
        expected = (many - real.flatten().repeat_interleave(3)).square().mean().item()
        assert value == pytest.approx(expected, rel=1e-6)


def test_mind_tells_samples_that_are_off_from_others():
    real = load_features("mnist_cnn").reference.samples
    near, far = (value_of(lambda: MIND(projections=30), rows) for rows in (real[:300], real[:300] + 0.5))
    assert near.interval and far.interval and near.interval[1] < far.interval[0]
    assert different(near, far, 300) < 1e-6


def test_fid_infinity_takes_away_what_falls_with_the_samples():
    """Of the distribution of the real images FID is 0 for endlessly many samples only."""
    mean, covariance = load_features("mnist_cnn").reference.moments
    root = torch.linalg.cholesky(covariance)
    features = (mean + draws(600, 64) @ root.T).float()
    raw, extrapolated = value_of(FID, features), value_of(FIDInfinity, features)
    assert extrapolated.interval and raw.interval
    assert abs(extrapolated.value) < 0.35 * raw.value
    few = FIDInfinity()
    few.batches.append(features[:259])
    assert few.compute(facts(259)) == {}


def different(first: Estimate, second: Estimate, count: int) -> float:
    variance, freedom = spread(first.halves - second.halves, count)
    return p_value(first.value - second.value, variance.sqrt().item(), freedom.item())


def test_t_quantiles_of_fractions_lie_between_those_of_whole_numbers():
    assert t_quantile(10) > t_quantile(10.5) > t_quantile(11)
