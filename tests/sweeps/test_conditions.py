"""Conditions: which cells may be ranked against each other."""

from pathlib import Path

import pytest

from diffexp.catalog.discover import discover
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
        {"pipe.max_sequence_length": 128},
    ],
)
def test_what_is_sampled_is_one(change: dict[str, object]):
    base = BASE | {"loop.name": "img2img"}
    found = conditions([cell_of(base), cell_of(base | change), cell_of(base | {"steps": 5})])
    ((key, value),) = change.items()
    assert found.of_cell == (0, 1, 0)
    assert found.values == ({key: BASE.get(key)}, {key: value})
    assert found.differing(key) == [BASE.get(key), value] and found.differing("seed") == []


LOOP = """
from diffexp import Batch, loop


@loop(inputs=["sketch"])
def traced(batch: Batch, *, sketch: str, strength: float = 0.5):
    ...
"""


def test_the_inputs_of_a_loop_are_those_that_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "traced.py").write_text(LOOP)
    monkeypatch.setenv("DIFFEXP_PLUGINS", str(tmp_path))
    base = BASE | {"loop.name": "traced", "loop.sketch": "a.png", "loop.strength": 0.5}
    changes: list[dict[str, object]] = [{}, {"loop.strength": 1.0}, {"loop.sketch": "b.png"}, {"loop.name": "denoise"}]
    found = conditions([cell_of(base | change) for change in changes])
    assert found.of_cell == (0, 0, 1, 2), "a loop without inputs is another condition than one that begins at an image"


@pytest.mark.parametrize("name", ["img2img", "inpaint", "inversion", "pipeline"])
def test_whatever_a_loop_reads_is_among_its_inputs(name: str):
    entry = discover().get("loop", name)
    read = {option.name for option in entry.options if {"str", "text"} & {option.type.base}}
    assert read == {*entry.traits["inputs"]}


def test_a_cell_without_config_is_of_the_first_condition():
    assert conditions([cell_of(BASE), cell_of({}), cell_of(BASE | {"label": 1})]).of_cell == (0, 0, 1)
    assert conditions([]).values == ()
