"""Emoji as training data, and the tokenizer of their names."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTokenizer

from diffexp.errors import InputError
from diffexp.train.emoji.data import load_emoji, pixels
from diffexp.train.emoji.prompts import all_prompts
from diffexp.train.emoji.text import train_tokenizer
from tests.emoji_packages import save_packages


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_packages(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def tokenizer(packages: list[Path], tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    texts = [f"{name}, {drawing.style}" for drawing in load_emoji(packages).drawings for name in drawing.names]
    return train_tokenizer(texts, 640, 12, tmp_path_factory.mktemp("tokenizer"))


def decoded(tokenizer: Any, ids: Any) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_names_styles_and_skin_tones(packages: list[Path]) -> None:
    drawings = load_emoji(packages).drawings
    assert len(drawings) == 2 * (20 + 2)
    assert (drawings[0].names, drawings[0].style) == (("red circle", "circle red"), "noto")
    assert drawings[22].style == "twemoji"
    assert drawings[2].names == ("red circle, dark skin tone", "circle red, dark skin tone")
    assert [drawing.weight for drawing in drawings[:4]] == [1, 0.5, 0.5, 1]


def test_transparent_pixels_are_white(packages: list[Path]) -> None:
    data = load_emoji(packages)
    assert data.images.shape == (44, 3, 64, 64) and data.images.dtype == torch.uint8
    assert data.images[0, :, 0, 0].tolist() == [255, 255, 255]
    assert data.images[0, :, 32, 32].tolist() == [220, 40, 40]
    assert pixels(data.images[:1])[0, :, 0, 0].tolist() == [1, 1, 1]


def test_common_names_come_first(packages: list[Path], tmp_path: Path) -> None:
    (tmp_path / "data-by-emoji.json").write_text(json.dumps({"\U0001f601\ufe0f": {"name": "Flag: Crimson"}}))
    drawings = load_emoji(packages, tmp_path).drawings
    assert drawings[3].names == ("flag crimson", "red square", "square red")
    assert drawings[0].names == ("red circle", "circle red")


def test_the_same_pairs_are_held_out_whatever_else_there_is(packages: list[Path], tmp_path: Path) -> None:
    both = load_emoji(packages)
    held = {(d.names, d.style) for d in both.drawings if d.held_out}
    assert 0 < len(held) < 10
    reversed_order = load_emoji(packages[::-1])
    assert {(d.names, d.style) for d in reversed_order.drawings if d.held_out} == held
    alone = load_emoji(packages[1:])
    assert {(d.names, d.style) for d in alone.drawings if d.held_out} == {pair for pair in held if pair[1] == "twemoji"}
    assert bool((both.weights[both.held_out] == 0).all()) and bool((both.weights[~both.held_out] > 0).all())


def test_all_skin_tones_of_a_held_out_emoji_are_held_out(packages: list[Path], tmp_path: Path) -> None:
    drawings = load_emoji(packages).drawings
    for name in ("red circle", "blue heart"):
        of_it = [d for d in drawings if d.names[0].split(",")[0] == name]
        assert len({(d.style, d.held_out) for d in of_it}) == 2, "one answer a style"


def test_a_folder_of_something_else_is_named(packages: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"data.path={tmp_path}: needs emoji.json and img/<vendor>/64"):
        load_emoji([tmp_path])
    with pytest.raises(InputError, match="data.path: name the unpacked packages"):
        load_emoji([])
    with pytest.raises(InputError, match=f"data.names={tmp_path}: needs data-by-emoji.json"):
        load_emoji(packages, tmp_path)


def test_words_of_the_names_are_one_token_each(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.tokenize("Red heart, twemoji") == ["red</w>", "heart</w>", ",</w>", "twemoji</w>"]
    assert tokenizer.model_max_length == 12


@pytest.mark.parametrize("text", ["zebra", "crème brûlée", "日本 flag", "what? 25 %", "☃"])
def test_any_text_can_be_encoded(tokenizer: CLIPTokenizer, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert decoded(tokenizer, ids).replace(" ", "") == text.replace(" ", "")


def test_the_vocabulary_is_read_back_from_its_two_files(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(Path(tokenizer.name_or_path) / name, tmp_path / name)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    assert again("green moon, noto 7").input_ids == tokenizer("green moon, noto 7").input_ids


def test_prompts_are_any_name_with_or_without_style(packages: list[Path], tokenizer: CLIPTokenizer) -> None:
    prompts = all_prompts(load_emoji(packages).drawings, tokenizer)
    chosen = torch.full((400,), 23)  # a red circle with a light skin tone, twemoji
    ids = prompts.draw(chosen, 0.2, 0.1, torch.Generator().manual_seed(0))
    told = [decoded(tokenizer, row) for row in ids]
    assert set(told) == {
        "red circle, light skin tone, twemoji".replace(",", " ,"),
        "circle red, light skin tone, twemoji".replace(",", " ,"),
        "red circle, light skin tone".replace(",", " ,"),
        "circle red, light skin tone".replace(",", " ,"),
        "",
    }
    assert 20 <= told.count("") <= 60 and 40 <= sum(bool(t) and "twemoji" not in t for t in told) <= 110
    assert decoded(tokenizer, prompts.usual(chosen[:1])[0]).startswith("red circle ,")
