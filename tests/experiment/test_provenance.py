"""Files that a config names: their contents count as its words do."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffexp.experiment.provenance import inputs_sha256


def config(**changes: Any) -> dict[str, Any]:
    usual = {"model": {"name": "mnist", "weights": None}, "loop": {"name": "denoise"}, "prompt": None}
    return usual | {"scheduler": {"name": "ddim", "order": 2}, "grid": {"name": "auto", "sigmas": [1.0]}} | changes


def test_a_config_that_names_none_has_none():
    assert inputs_sha256(config()) is None
    assert inputs_sha256(config(prompt="a cat\n" * 500, loop={"name": "img2img", "image": "nowhere.png"})) is None
    assert inputs_sha256(config(prompt="x" * 5000)) is None


def test_words_that_happen_to_be_names_of_files_are_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mnist", "cat", "@cat"):
        (tmp_path / name).write_text("not looked at")
    assert inputs_sha256(config(prompt="cat", loop={"name": "inversion", "source": "@@cat"})) is None


def test_contents_and_keys_count_and_times_do_not(tmp_path: Path):
    file = tmp_path / "prompts.txt"
    file.write_text("a cat")
    asked = config(prompt=f"@{file}")
    first = inputs_sha256(asked)
    assert first is not None and first == inputs_sha256(asked) != inputs_sha256(config(negative_prompt=f"@{file}"))
    file.write_text("a dog")
    assert inputs_sha256(asked) != first
    file.write_text("a cat")
    assert inputs_sha256(asked) == first


def test_of_a_folder_the_pictures_count_that_a_loop_takes(tmp_path: Path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    asked = config(loop={"name": "img2img", "image": str(tmp_path)})
    first = inputs_sha256(asked)
    (tmp_path / "notes.txt").write_text("not looked at")
    assert inputs_sha256(asked) == first
    Image.new("L", (4, 4), 9).save(tmp_path / "b.png")
    assert inputs_sha256(asked) != first
    assert inputs_sha256(config(model={"name": "hub", "id": str(tmp_path)})) is None, "weights have their own hash"
