"""Keywords of ``diffexp.run`` and ``diffexp.sweep``: every Python value arrives in the config as it is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, strategies as st

from diffexp.catalog.discover import Catalog
from diffexp.cli.cells import task_config
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.cli.keywords import Keywords
from diffexp.errors import InputError


@pytest.fixture(scope="module")
def preflight(catalog: Catalog) -> Iterator[Preflight]:
    with hydra_session(catalog) as loader:
        yield Preflight(loader, catalog)


VALUES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"steps": np.int64(7), "guidance_scale": np.float32(1.5)}, {"steps": 7, "guidance_scale": 1.5}),
    ({"steps": torch.tensor(7), "seed": np.array(3)}, {"steps": 7, "seed": 3}),
    ({"num_samples": None, "notes": None, "compile": np.bool_(True)}, {"notes": None, "compile": True}),
    ({"prompt": "a cat, 'sitting' on \"it\" [x] {y} \\"}, {"prompt": "a cat, 'sitting' on \"it\" [x] {y} \\"}),
    ({"prompt": "[a, b]"}, {"prompt": "[a, b]"}),
    ({"prompt": "'quoted'"}, {"prompt": "'quoted'"}),
    ({"prompt": ["a, b", "c]", "null"]}, {"prompt": ["a, b", "c]", "null"]}),
    ({"prompt": ("one",)}, {"prompt": ["one"]}),
    ({"prompt": "null", "name": "10", "notes": "two\nlines = \t${"}, {"prompt": "null", "name": "10"}),
    ({"label": [3, 8]}, {"label": [3, 8]}),
    ({"label": np.array([3, 8])}, {"label": [3, 8]}),
    ({"label": pd.Series([3, 8])}, {"label": [3, 8]}),
    ({"label": "7"}, {"label": "7"}),
    ({"label": range(3)}, {"label": [0, 1, 2]}),
    ({"tags": ["a,b", "true"], "dtype": torch.float16, "device": torch.device("cpu")}, {"tags": ["a,b", "true"]}),
    ({"resume": Path("/a folder/it's, here")}, {"resume": "/a folder/it's, here"}),
    ({"metric": ["cost", "fid"]}, {"metric": {"cost", "fid"}}),
    ({"metric": []}, {"metric": set()}),
    ({"metric": {"fid": {"features": "pixels"}, "cost": None}}, {"metric": {"fid", "cost"}}),
    ({"metric": {"name": "fid"}}, {"metric": {"fid"}}),
    ({"tracker": ["none"]}, {"tracker": {"none"}}),
    ({"tracker": {"name": "wandb", "project": "a, b"}}, {"tracker": {"wandb"}}),
    ({"scheduler": {"name": "ddim", "eta": 1}}, {"scheduler": {"name": "ddim", "eta": 1.0}}),
    ({"scheduler": {"eta": 0.5}}, {"scheduler": {"name": "ddim", "eta": 0.5}}),
    ({"scheduler": "ddim", "scheduler.eta": 1e-5}, {"scheduler": {"name": "ddim", "eta": 1e-5}}),
    ({"scheduler": "diffusers/unipc", "scheduler.solver_order": 3}, {}),
    ({"scheduler": {"_target_": "diffusers.UniPCMultistepScheduler", "solver_order": 3}}, {}),
    ({"grid": {"timesteps": np.array([900.5, 10.0])}}, {"steps": 2}),
    ({"grid": {"name": "auto", "timesteps": torch.tensor([900, 10])}}, {"steps": 2}),
]


@pytest.mark.parametrize(("keywords", "expected"), VALUES)
def test_a_value_arrives_as_it_is(
    keywords: dict[str, Any], expected: dict[str, Any], preflight: Preflight, catalog: Catalog
) -> None:
    words = Keywords(catalog, swept=False).words({"metric": "cost", "tracker": "none", **keywords})
    config = task_config(preflight.check(words, multirun=False).config, catalog)
    assert words
    for key, value in expected.items():
        if key == "scheduler":
            assert {option: config[key][option] for option in value} == value
        else:
            assert (set(config[key]) if isinstance(value, set) else config[key]) == value
    if keywords.get("notes"):
        assert config["notes"] == keywords["notes"]
    if keywords.get("scheduler") == "diffusers/unipc" or "_target_" in str(keywords):
        assert config["scheduler"]["solver_order"] == 3


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_hydras_grammar(text: str) -> None:
    (word,) = Keywords.words(Keywords(None, swept=False), {"notes": text})  # pyright: ignore[reportArgumentType]
    found: Any = OverridesParser.create().parse_override(word).value()
    assert str(found).replace("\\${", "${") == text


SWEEPS: list[tuple[dict[str, Any], list[str]]] = [
    ({"scheduler": ["ddpm", "ddim"], "steps": [2, 3]}, ["ddpm 2", "ddpm 3", "ddim 2", "ddim 3"]),
    ({"seed": range(3)}, ["0", "1", "2"]),
    ({"seed": np.arange(2), "metric": ["cost", "fid"]}, ["0 [cost,fid]", "1 [cost,fid]"]),
    ({"tags": ["a", "b"], "steps": 2}, ["['a','b'] 2"]),
    ({"label": [[3, 8], [1], None]}, ["[3,8]", "[1]", "null"]),
    ({"prompt": ["a, b", "c"]}, ["'a, b'", "'c'"]),
    ({"prompt": [["a", "b"], "c"]}, ["['a','b']", "'c'"]),
    ({"grid": {"timesteps": [900, 10]}}, ["[900,10]"]),
    ({"grid": {"timesteps": [[900, 10], [900, 20]]}}, ["[900,10]", "[900,20]"]),
    ({"scheduler": {"name": ["ddim", "heun"], "eta": [0, 0.5]}}, ["ddim 0", "ddim 0.5", "heun"]),
]


@pytest.mark.parametrize(("keywords", "cells"), SWEEPS)
def test_a_list_names_the_values_of_a_sweep(
    keywords: dict[str, Any], cells: list[str], preflight: Preflight, catalog: Catalog
) -> None:
    checked = preflight.check(Keywords(catalog, swept=True).words(keywords), multirun=True)
    found = [" ".join(word.partition("=")[2] for word in cell) for cell in checked.cells or []]
    plain = [text.replace("'", "") for text in found]
    assert plain == [text.replace("'", "") for text in cells]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"a b": 1}, "'a b' is not a key"),
        ({"seed": {1, 2}}, "has no order; give a list"),
        ({"seed": []}, "seed=[] names no value of the sweep"),
        ({"steps": object()}, "is no value of a config"),
        ({"steps": 1 + 2j}, "is no value of a config"),
        ({"notes": b"x"}, "is no value of a config"),
        ({"scheduler": ["ddim", {"name": "heun"}]}, "a sweep takes names in a list"),
        ({"model": torch.nn.Linear(1, 1)}, "is no value of a config"),
    ],
)
def test_what_is_no_value(keywords: dict[str, Any], message: str, catalog: Catalog) -> None:
    with pytest.raises(InputError) as caught:
        Keywords(catalog, swept=True).words(keywords)
    assert message in str(caught.value) and "\n" not in str(caught.value)
