"""Conditions: which cells may be ranked against each other."""

import pytest

from diffexp.sweeps.conditions import conditions
from tests.made_up import cell_of

BASE = {"model.name": "mnist", "scheduler.name": "ddim", "steps": 10, "num_samples": 64, "label": None, "seed": 0}


@pytest.mark.parametrize(
    "change", [{"scheduler.name": "euler"}, {"steps": 20}, {"seed": 1}, {"guidance_scale": 3.0}, {"loop.strength": 0.5}]
)
def test_how_samples_are_drawn_is_no_condition(change: dict[str, object]):
    found = conditions([cell_of(BASE), cell_of(BASE | change)])
    assert found.of_cell == (0, 0) and found.values == ({},)


@pytest.mark.parametrize(
    "change",
    [
        {"label": 3},
        {"num_samples": 128},
        {"model.name": "ddpm_cat"},
        {"model.scale": 2},
        {"prompt": "a cat"},
        {"negative_prompt": "blurry"},
        {"loop.image": "cat.png"},
    ],
)
def test_what_is_sampled_is_one(change: dict[str, object]):
    found = conditions([cell_of(BASE), cell_of(BASE | change), cell_of(BASE | {"steps": 5})])
    ((key, value),) = change.items()
    assert found.of_cell == (0, 1, 0)
    assert found.values == ({key: BASE.get(key)}, {key: value})
    assert found.differing(key) == [BASE.get(key), value] and found.differing("seed") == []


def test_a_cell_without_config_is_of_the_first_condition():
    assert conditions([cell_of(BASE), cell_of({}), cell_of(BASE | {"label": 1})]).of_cell == (0, 0, 1)
    assert conditions([]).values == ()
