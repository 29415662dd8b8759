"""Noise: sample i depends on seed and i alone."""

import torch
from hypothesis import given, strategies as st

from diffexp.plan.noise import SampleNoise, sample_seed


@given(st.integers(0, 2**63), st.lists(st.integers(0, 10**6), min_size=1, max_size=5, unique=True))
def test_a_sample_does_not_depend_on_its_batch(seed: int, indices: list[int]) -> None:
    together = SampleNoise(seed, indices, (1, 4, 4))
    alone = [SampleNoise(seed, [index], (1, 4, 4)) for index in indices]
    for _ in range(3):
        drawn = together.draw()
        assert torch.equal(drawn, torch.cat([noise.draw() for noise in alone]))


def test_draws_differ_between_samples_draws_and_seeds() -> None:
    noise = SampleNoise(0, [0, 1], (64,))
    first, second = noise.draw(), noise.draw()
    other = SampleNoise(1, [0, 1], (64,)).draw()
    rows = torch.cat([first, second, other])
    assert len({tuple(row.tolist()) for row in rows}) == 6


def test_draws_are_standard_normal() -> None:
    drawn = SampleNoise(3, range(400), (2,)).draw()
    assert abs(drawn.mean()) < 0.15 and abs(drawn.std() - 1) < 0.1


def test_seeds_of_neighbours_have_nothing_in_common() -> None:
    seeds = {sample_seed(seed, index) for seed in range(30) for index in range(30)}
    assert len(seeds) == 900


def test_dtype() -> None:
    assert SampleNoise(0, [0], (2,), dtype=torch.float64).draw().dtype == torch.float64
