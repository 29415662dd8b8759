"""Values of a config that follow from others."""

import pytest

from diffexp.catalog.discover import discover
from diffexp.experiment.configs import usual_samples

PLUGIN = """
from diffexp import model

@model(default_samples=7)
def slow(runtime): ...
"""


@pytest.mark.parametrize(
    ("model", "prompt", "number"),
    [
        ("mnist", "a seven", 64),
        ("hub", None, 4),
        ("pipeline", None, 1),
        ("pipeline", "a house", 1),
        ("pipeline", ["a house", "a tree", "a cat"], 3),
        ("pipeline", "@nowhere.txt", 1),
        ("slow", None, 7),
        ("unheard_of", None, 64),
    ],
)
def test_the_number_of_samples_is_a_trait_of_the_model(tmp_path, monkeypatch, model, prompt, number):
    (tmp_path / "slow.py").write_text(PLUGIN)
    monkeypatch.setenv("DIFFEXP_PLUGINS", str(tmp_path / "slow.py"))
    assert usual_samples(model, prompt, discover()) == number
