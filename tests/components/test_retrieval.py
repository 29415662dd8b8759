"""Retrieval: whether an image's prompt is among the texts that are nearest to it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffexp.components.metrics.clip import Clip
from diffexp.components.metrics.retrieval import Retrieval, name_in
from tests.clip_checkpoint import save_clip

MODEL: Any = SimpleNamespace(id="painter", prompts=None, device=torch.device("cpu"))
PROMPTS = ["a cat", "two dogs in the snow", "a cat"]
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_clip(tmp_path / "tiny-clip")


def retrieved(folder: Path, prompts: list[str], **options: Any) -> list[float]:
    found = Retrieval(model=str(folder), **options)
    assert found.applies(MODEL) is None
    for batch in IMAGES.split(2):
        found.update(batch * 2 - 1, batch)
    facts: Any = SimpleNamespace(captions=prompts)
    return found.compute(facts)["retrieval/tiny-clip"].tolist()


def test_retrieval_is_whether_the_prompt_is_among_the_nearest_names(folder: Path, tmp_path: Path) -> None:
    names = ["a cat", "two dogs in the snow", "nothing", "a boat"]
    (tmp_path / "list.txt").write_text("\n".join([*names, ""]))
    clip = Clip.load(folder, torch.device("cpu"))
    cosines = torch.nn.functional.cosine_similarity(
        clip.of_images(IMAGES).unsqueeze(1), clip.of_texts(names).unsqueeze(0), dim=2
    )
    order = cosines.argsort(dim=1, descending=True).tolist()
    for nearest in (1, 2, 4):
        expected = [float(names.index(prompt) in order[i][:nearest]) for i, prompt in enumerate(PROMPTS)]
        assert retrieved(folder, PROMPTS, names=str(tmp_path / "list.txt"), nearest=nearest) == expected


def test_retrieval_reads_the_names_beside_its_model_and_adds_the_prompts(folder: Path) -> None:
    assert "names.txt: no such file" in (Retrieval(model=str(folder)).applies(MODEL) or "")
    (folder / "names.txt").write_text("".join(f"name {i}\n" for i in range(30)))
    assert set(retrieved(folder, PROMPTS, nearest=32)) == {1.0}, "30 names and two prompts"
    assert 0.0 in retrieved(folder, ["a cat", "two dogs", "a boat"], nearest=1)


def test_a_prompt_with_its_style_counts_as_its_name(folder: Path) -> None:
    names = ["family woman", "family woman, woman, boy", "a cat"]
    assert name_in("a cat, noto", names) == "a cat"
    assert name_in("family woman, woman, boy, noto", names) == "family woman, woman, boy"
    assert name_in("family woman, noto", names) == "family woman"
    assert name_in("a catfish, noto", names) == "a catfish, noto"
    (folder / "names.txt").write_text("\n".join(["a cat", "two dogs in the snow", *map(str, range(30))]))
    styled = ["a cat, noto", "two dogs in the snow, noto", "a cat, twemoji"]
    for nearest in (1, 8, 20):
        assert retrieved(folder, styled, nearest=nearest) == retrieved(folder, PROMPTS, nearest=nearest)
