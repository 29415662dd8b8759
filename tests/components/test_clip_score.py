"""CLIP score: torchmetrics' values, one a sample; skipped with a reason where there is nothing to compare."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from torch import Tensor
from transformers import (
    CLIPModel,
)

from diffexp.components.metrics.clip import Clip
from diffexp.components.metrics.clip_score import ClipScore
from diffexp.errors import InputError
from diffexp.experiment.run import RunResult
from tests.checkpoints import edit_json, put_in_cache
from tests.clip_checkpoint import save_clip
from tests.runs import metrics

ID = "somebody/tiny-clip"
PROMPTS = ["a cat", "two dogs in the snow", "a cat"]
MODEL = SimpleNamespace(id="painter", prompts=None, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that has it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return put_in_cache(tmp_path, ID, folder)


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def scored(model: str, prompts: list[str], size: int = 2, **options: Any) -> dict[str, Tensor]:
    """The metric's answer for as many pictures, seen in batches."""
    found = ClipScore(model=model, **options)
    assert found.applies(MODEL) is None  # pyright: ignore[reportArgumentType]
    for batch in images(len(prompts)).split(size):
        found.update(batch * 2 - 1, batch)
    return found.compute(SimpleNamespace(captions=prompts))  # pyright: ignore[reportArgumentType]


class AsTensors(torch.nn.Module):
    """The model as torchmetrics 1.9 calls it: transformers 5 returns an output object where that wants a tensor."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=pixels, input_ids=torch.tensor([[0]])).image_embeds

    def get_text_features(self, tokens: Tensor, mask: Tensor) -> Tensor:
        pixels = torch.zeros(1, 3, 16, 16)
        return self.model(pixel_values=pixels, input_ids=tokens, attention_mask=mask).text_embeds


def test_it_is_torchmetrics_score_of_every_sample(cache: Path) -> None:
    from torchmetrics.functional.multimodal import clip_score
    from torchmetrics.multimodal.clip_score import CLIPScore

    own = Clip.load(cache, torch.device("cpu"))

    def processor(images: Any = None, text: Any = None, **more: Any) -> Any:
        return own.tokenizer(text, **more) if images is None else own.prepare(images=images, return_tensors="pt")

    def made() -> Any:
        return AsTensors(own.network), processor

    (name, found), *_ = scored(ID, PROMPTS).items()
    assert name == "clip_score/tiny-clip"
    pictures = images().mul(255).round().byte()
    one_by_one = torch.stack([clip_score(image, text, made) for image, text in zip(pictures, PROMPTS)])  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(found, one_by_one.detach(), atol=1e-3, rtol=1e-5)
    assert found.min() > 0 and found.std() > 1e-2, "a test that sees something"
    whole = CLIPScore(made)  # pyright: ignore[reportArgumentType]
    whole.update(list(pictures), PROMPTS)
    torch.testing.assert_close(found.mean(), whole.compute().detach(), atol=1e-3, rtol=1e-5)


def test_batches_do_not_matter(cache: Path) -> None:
    (whole,), (parts,) = scored(ID, PROMPTS, size=3).values(), scored(ID, PROMPTS, size=1).values()
    torch.testing.assert_close(whole, parts)


def test_a_long_prompt_is_cut(cache: Path) -> None:
    long = " ".join(["cat"] * 200)
    (found,) = scored(ID, [long, f"{long} dog"]).values()
    assert found.isfinite().all()


def test_a_folder_will_do_and_a_score_is_never_negative(folder: Path, tmp_path: Path) -> None:
    opposed = tmp_path / "opposed"
    shutil.copytree(folder, opposed)
    model = CLIPModel.from_pretrained(folder)
    model.visual_projection.weight.data.neg_()
    model.save_pretrained(opposed)
    assert scored(str(opposed), PROMPTS)["clip_score/opposed"].tolist() == [0.0, 0.0, 0.0]


def without(name: str) -> Callable[[Path], object]:
    return lambda snapshot: (snapshot / name).unlink()


def pickled(snapshot: Path) -> None:
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")


def no_clip(snapshot: Path) -> None:
    edit_json(snapshot / "config.json", model_type="siglip")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (without("config.json"), "is neither a folder nor in the cache"),
        (without("model.safetensors"), "is only partly in the cache"),
        (without("preprocessor_config.json"), "is only partly in the cache"),
        (pickled, "if you trust it: metric.clip_score.allow_pickle=true"),
        (no_clip, "is a siglip, not a CLIP model"),
    ],
)
def test_why_it_is_left_out(spoil: Callable[[Path], object], expected: str, cache: Path) -> None:
    spoil(cache)
    reason = ClipScore(model=ID).applies(MODEL)  # pyright: ignore[reportArgumentType]
    assert reason and expected in reason and "\n" not in reason


def test_it_needs_a_prompt_and_transformers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = SimpleNamespace(id="mnist", device=MODEL.device)
    assert ClipScore(model=ID).applies(digits) == "model=mnist takes no prompts"  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr("diffexp.components.metrics.clip.find_spec", lambda name: None)
    assert "pip install" in (ClipScore(model=ID).applies(MODEL) or "")  # pyright: ignore[reportArgumentType]


def test_a_run(cache: Path, run: Callable[..., RunResult], tiny: Callable[[str], Path]) -> None:
    words = ("model=pipeline", "model.height=32", "model.width=32", "steps=2", "snapshot_every=0", "num_samples=3")
    words += ("prompt=[a cat,a dog]", f"model.id={tiny('sd15')}", "batch_size=2", "metric=[cost,clip_score]")
    found = run(*words, f"metric.clip_score.model={ID}")
    assert 0 <= metrics(found.folder)["clip_score/tiny-clip"] <= 100
    header, *rows = (found.folder / "sample_metrics.csv").read_text().splitlines()
    assert header == "index,clip_score/tiny-clip" and len(rows) == 3
    with pytest.raises(InputError) as caught:
        run(*words)
    line = str(caught.value)
    assert line.startswith("metric=clip_score does not apply: ") and line.endswith("; write metric=[cost]")
    assert "metric.clip_score.model=openai/clip-vit-base-patch16" in line and "hf download" in line
