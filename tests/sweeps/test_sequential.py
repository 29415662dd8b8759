"""The sequential test of ``stop=decided``, simulated: how often it errs, how often it decides, what it saves."""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri, stdtr
from torch import Tensor

from diffexp.components.metrics.half_samples import splits, spread
from diffexp.components.metrics.significance import holm, p_value
from diffexp.errors import InputError
from diffexp.sweeps.race_decision import decide
from diffexp.sweeps.race_record import Look, Racer, RaceRecord, pair_of
from diffexp.sweeps.sequential import LEVEL, adjusted, check_samples, is_hopeless, looks, repeated, shares

CELLS, SIZE = 5, 8

Draw = Callable[[np.random.Generator, int, int], np.ndarray]
"""Features of samples: of a generator, the number of samples and that of cells, (samples, cells, SIZE)."""


def normal(generator: np.random.Generator, count: int, cells: int) -> np.ndarray:
    return generator.normal(size=(count, cells, SIZE))


def correlated(generator: np.random.Generator, count: int, cells: int) -> np.ndarray:
    """From the same start noise, with features that depend on each other."""
    mixed = generator.normal(size=(SIZE, SIZE))
    common = generator.normal(size=(count, 1, SIZE))
    return (0.9 * common + 0.44 * generator.normal(size=(count, cells, SIZE))) @ mixed / SIZE**0.5


def heavy_tailed(generator: np.random.Generator, count: int, cells: int) -> np.ndarray:
    return generator.standard_t(5, size=(count, cells, SIZE))


def skewed(generator: np.random.Generator, count: int, cells: int) -> np.ndarray:
    return generator.exponential(size=(count, cells, SIZE)) - 1


def distances(features: np.ndarray) -> tuple[Tensor, Tensor]:
    """Frechet distances of features (N, cells, SIZE) to N(0, 1), and their values on halves (cells, 2, B)."""
    rows = torch.from_numpy(features).flatten(1)
    first = splits(range(len(rows))).double()
    weights = torch.cat([torch.ones(len(rows), 1).double(), first, 1 - first], dim=1)
    means = weights.T @ rows / weights.sum(0)[:, None]
    variances = weights.T @ rows.square() / weights.sum(0)[:, None] - means.square()
    found = (means.square() + (variances.clamp(min=0).sqrt() - 1).square()).unflatten(1, (-1, SIZE)).sum(2)
    return found[0], found[1:].T.reshape(found.shape[1], 2, -1)


def errs(features: np.ndarray, most: int) -> bool:
    """Whether some pair of identical cells is found to differ at some look."""
    pairs = np.array([*combinations(range(CELLS), 2)])
    best = np.ones(len(pairs))
    for count, share in zip(looks(most), shares(looks(most))):
        values, halves = distances(features[:count])
        differences = (values[pairs[:, 0]] - values[pairs[:, 1]]).numpy()
        variances, freedoms = spread(halves[pairs[:, 0]] - halves[pairs[:, 1]], count)
        p = 2 * stdtr(freedoms.numpy(), -np.abs(differences) / variances.sqrt().numpy())
        best = np.minimum(best, p / share)
    return bool(min(holm(best.tolist())) < LEVEL)


@pytest.mark.parametrize("draw", [normal, correlated, heavy_tailed, skewed])
def test_a_race_of_five_identical_cells_seldom_finds_a_difference(draw: Draw):
    generator = np.random.default_rng(0)
    found = [errs(draw(generator, 108, CELLS), 108) for _ in range(100)]
    assert sum(found) <= 5


@pytest.mark.slow
@pytest.mark.parametrize("draw", [normal, correlated, heavy_tailed, skewed])
def test_a_long_race_of_five_identical_cells_seldom_finds_a_difference(draw: Draw):
    generator = np.random.default_rng(1)
    found = [errs(draw(generator, 500, CELLS), 500) for _ in range(400)]
    assert sum(found) <= 20


# whole races


def race(features: np.ndarray, groups: Sequence[int], seeds: int = 1) -> RaceRecord:
    """A race of cells with these features (N, cells, SIZE), ``seeds`` in a row to a racer, groups of racers."""
    most, names = len(features), [str(cell) for cell in range(features.shape[1])]
    racers = [[*range(first, first + seeds)] for first in range(0, len(names), seeds)]
    record = RaceRecord([Racer(own, [names[i] for i in own], most, group) for own, group in zip(racers, groups)])
    sizes = np.unique(groups, return_counts=True)[1]
    record.tests = int((sizes * (sizes - 1) // 2).sum())
    for count in looks(most):
        going = [number for number, racer in enumerate(record.racers) if not racer.why]
        own = [cell for number in going for cell in racers[number]]
        if not own:
            break
        values, halves = distances(features[:count][:, own])
        found = Look(
            {names[i]: value.item() for i, value in zip(own, values)}, {names[i]: half for i, half in zip(own, halves)}
        )
        record.looks += 1
        for number in going:
            record.racers[number].samples = count
        for group in dict.fromkeys(groups):
            racing = [number for number in going if groups[number] == group]
            decide(record, racing, {n: dict(enumerate(names[i] for i in racers[n])) for n in racing}, found)
    return record


def study(generator: np.random.Generator, count: int) -> tuple[np.ndarray, list[int]]:
    """Features as of a study of eight samplers at seven costs: from the same noise, two of them the same.

    At the larger costs most are nearly as good as each other.
    """
    orders = {"ancestral": (2.0, 0.5), "first": (2.5, 1.0), "again": (2.5, 1.0), "second": (6.0, 1.7)}
    orders |= {f"multi {number}": (4.0 + number, 1.9) for number in range(4)}
    common, own = generator.normal(size=(count, 1, SIZE)), generator.normal(size=(count, 1, SIZE))
    cells, groups = [], []
    for group, cost in enumerate((5, 8, 10, 15, 20, 30, 50)):
        for name, (size, order) in orders.items():
            error = size * cost**-order
            noise = own if name in ("first", "again") else generator.normal(size=(count, 1, SIZE))
            cells.append(0.25 + error + 0.9 * common + (0.43 if name == "ancestral" else 0.2) * noise)
            groups.append(group)
    return np.concatenate(cells, axis=1), groups


def fixed_verdicts(features: np.ndarray, groups: Sequence[int]) -> set[tuple[int, int]]:
    """The pairs (best, other) at equal cost that differ with all samples, as a page finds them: Holm over all pairs."""
    values, halves = distances(features)
    pairs = [*combinations(range(len(groups)), 2)]
    p_values = []
    for i, j in pairs:
        variance, freedom = (one.item() for one in spread(halves[i] - halves[j], len(features)))
        p_values.append(p_value((values[i] - values[j]).item(), variance**0.5, freedom))
    differ = {pair for pair, p in zip(pairs, holm(p_values)) if p < LEVEL}
    found = set()
    for group in dict.fromkeys(groups):
        own = [i for i, other in enumerate(groups) if other == group]
        best = min(own, key=lambda i: values[i].item())
        found |= {(best, other) for other in own if (min(best, other), max(best, other)) in differ}
    return found


def test_a_race_finds_what_all_samples_find_with_a_third_of_them():
    generator = np.random.default_rng(0)
    kept = wanted = found = 0
    drawn = []
    for _ in range(3):
        features, groups = study(generator, 500)
        expected = {other for _, other in fixed_verdicts(features, groups)}
        record = race(features, groups)
        beaten = {number for number, racer in enumerate(record.racers) if racer.beaten_by}
        kept, wanted, found = kept + len(beaten & expected), wanted + len(expected), found + len(beaten - expected)
        drawn.append(np.mean([racer.samples for racer in record.racers]) / 500)
        assert all(racer.why for racer in record.racers)
    assert wanted > 80
    assert kept >= 0.93 * wanted  # the rest are differences that all samples hardly find either
    assert found <= 0.05 * wanted
    assert np.mean(drawn) <= 0.35


def test_identical_cells_are_not_drawn_to_the_end():
    """Two whose samples are the same differ in nothing, and never will."""
    features = np.repeat(normal(np.random.default_rng(0), 200, 1), 2, axis=1)
    record = race(features, [0, 0])
    assert [racer.samples for racer in record.racers] == [32, 32]
    assert [racer.beaten_by for racer in record.racers] == ["", ""]
    assert record.p_values == {"0-1": 1.0}


def test_seeds_are_pooled():
    """Four seeds of a difference find what one of them does not."""
    generator = np.random.default_rng(3)
    cells = generator.normal(size=(64, 8, SIZE))
    cells[:, 4:] += 0.3
    many, one = race(cells, [0, 0], seeds=4), race(cells[:, [0, 4]], [0, 0])
    assert many.racers[1].beaten_by == "0"
    assert many.p_values["0-1"] < 0.01 * one.p_values["0-1"]


@pytest.mark.parametrize(
    ("alone", "found"), [(0.05, (0.0, 0.05)), (0.44, (0.34, 0.44)), (0.8, (0.7, 0.8)), (0.97, (0.93, 0.97))]
)
def test_a_difference_is_found_nearly_as_often_as_with_all_samples(alone: float, found: tuple[float, float]):
    """The z value of a difference that a test of all samples alone finds with this probability, at every look."""
    counts = looks(500)
    times, generator = np.array(counts) / 500, np.random.default_rng(0)
    drift = 0.0 if alone == LEVEL else ndtri(1 - LEVEL / 2) + ndtri(alone)
    steps = generator.normal(size=(4000, len(times))) * np.sqrt(np.diff(times, prepend=0.0))
    p_values = 2 * ndtr(-np.abs((steps.cumsum(axis=1) + drift * times) / np.sqrt(times)))
    decided = 0
    for own in p_values.tolist():
        for p, share, count in zip(own, shares(counts), counts):
            decided += p / share < LEVEL
            if p / share < LEVEL or is_hopeless(p, count, 500, LEVEL * shares(counts)[-1]):
                break
    assert found[0] - 0.02 <= decided / len(p_values) <= found[1] + 0.005


# its parts


@pytest.mark.parametrize("most", [64, 65, 100, 500, 1000, 5000])
def test_looks_grow_up_to_all_samples_and_their_shares_are_one_level(most: int):
    found = looks(most)
    assert found[-1] == most and [*found] == sorted({*found})
    assert all(count % 2 == 0 for count in found[:-1])
    assert all(1.15 <= after / before <= 1.9 for before, after in zip(found, found[1:]))
    assert sum(shares(found)) == pytest.approx(1)


def test_too_few_samples_leave_no_room_for_looks():
    check_samples(64)
    with pytest.raises(InputError, match="needs num_samples=64 or more"):
        check_samples(63)


def test_p_values_over_looks_only_fall_and_pay_for_all_looks():
    first = repeated(0.01, 0.25)
    assert first == pytest.approx(0.04)
    assert repeated(0.5, 0.75, first) == first
    assert repeated(0.003, 0.75, first) == pytest.approx(0.004)


def test_p_values_that_are_not_known_count_as_one():
    assert adjusted({(0, 1): 0.01, (0, 2): 0.002}, 3) == {(0, 2): pytest.approx(0.006), (0, 1): pytest.approx(0.02)}
    assert adjusted({(0, 1): 0.01}, 10) == {(0, 1): pytest.approx(0.1)}
    assert {pair_of("3-17")} == {(3, 17)}


def test_a_difference_is_given_up_when_it_hardly_has_a_chance():
    assert is_hopeless(0.9, 100, 500, 1e-3)
    assert not is_hopeless(0.9, 20, 500, 1e-3)  # too early to say
    assert not is_hopeless(0.01, 100, 500, 1e-3)
    assert not is_hopeless(0.9, 500, 500, 1e-3)  # nothing is left to be given up
