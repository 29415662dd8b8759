"""Checkpoints in one file, other VAEs, and text encoders whose last layers are left out."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from diffexp.components.models.base import Request, Runtime
from diffexp.components.models.pipeline import pipeline
from diffexp.errors import InputError
from tests.checkpoints import put_in_cache
from tests.pipeline_runs import COMMON, PROMPTS, Tiny, by_diffusers, drawn, psnr
from tests.runs import record
from tests.single_files import save_single_file, vae_weights

RUNTIME = Runtime(torch.device("cpu"), torch.float32, False)
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
WORDS = (*COMMON, "scheduler=ddim", "guidance_scale=3", f"prompt={PROMPTS}")


@pytest.fixture(scope="module")
def single(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_single_file(tiny("sd15"), tmp_path_factory.mktemp("civitai") / "tiny.safetensors")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def configs_of(folder: Path, target: Path) -> Path:
    """A copy of a pipeline's folder without its weights."""
    return shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))


def test_a_file_is_the_checkpoint_it_was_made_from(tiny: Tiny, single: Path, tmp_path: Path) -> None:
    configs = configs_of(tiny("sd15"), tmp_path / "configs")
    found: Any = pipeline(RUNTIME, id=str(single), config=str(configs))
    expected: Any = pipeline(RUNTIME, id=str(tiny("sd15")))
    assert type(found) is type(expected)
    assert found.training == expected.training
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(found.pipe, part).state_dict(), getattr(expected.pipe, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert len(found.weights_sha256) == 64 and found.weights_sha256 != expected.weights_sha256


def test_a_run_of_a_file_draws_the_images_of_the_folder(run: Any, tiny: Tiny, single: Path, cache: Path) -> None:
    put_in_cache(cache, SD15, tiny("sd15"))
    words = [word for word in WORDS if not word.startswith("model")]
    found = run("model=sd15", "model.height=32", "model.width=32", f"model.id={single}", *words)
    expected = run(*WORDS, f"model.id={tiny('sd15')}")
    assert record(found.folder)["model_id"] == str(single)
    assert torch.equal(drawn(found), drawn(expected))


def test_what_is_missing_is_one_line(single: Path, cache: Path, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        pipeline(RUNTIME, id=str(single))
    told = str(refused.value)
    assert told.startswith(f"model.id={single} has weights alone; its configs and tokenizer are not at hand")
    assert SD15 in told and told.endswith("or name a folder with them: model.config=...")
    assert "\n" not in told
    configs = configs_of(tiny("sd15"), tmp_path / "configs")
    shutil.rmtree(configs / "tokenizer")
    with pytest.raises(InputError, match="model.config=.*configs is not complete: it lacks tokenizer"):
        pipeline(RUNTIME, id=str(single), config=str(configs))


def lora(file: Path) -> Path:
    save_file({"lora_unet_down.weight": torch.ones(2)}, file)
    return file


def torn(file: Path) -> Path:
    file.write_bytes(b"\x10\0\0\0\0\0\0\0{")
    return file


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda file: file, {}, "no such file"),
        (lambda file: file.with_suffix(".ckpt"), {}, "is a pickle, which can run any code when loaded"),
        (lora, {}, "is no whole checkpoint: it has no model.diffusion_model"),
        (torn, {}, "is damaged or no .safetensors file"),
        (lora, {"revision": "main"}, "is one file; leave model.revision and model.variant out"),
    ],
)
def test_files_that_cannot_be_used(
    make: Callable[[Path], Path], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        pipeline(RUNTIME, id=str(make(tmp_path / "file.safetensors")), **options)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_weights_that_a_file_lacks(tiny: Tiny, single: Path, tmp_path: Path) -> None:
    weights = {name: value for name, value in load_file(single).items() if not name.startswith("cond_stage")}
    save_file(weights, tmp_path / "half.safetensors")
    with pytest.raises(InputError, match=r"half.safetensors does not load: Failed to load CLIPTextModel"):
        pipeline(RUNTIME, id=str(tmp_path / "half.safetensors"), config=str(tiny("sd15")))


# other VAEs


@pytest.fixture(scope="module")
def vaes(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A VAE as a folder and as a file."""
    from diffusers import StableDiffusionPipeline

    home = tmp_path_factory.mktemp("vaes")
    pipe = StableDiffusionPipeline.from_pretrained(tiny("sd15"), local_files_only=True)
    with torch.no_grad():
        for weight in pipe.vae.parameters():
            weight.mul_(1.1)
    pipe.vae.save_pretrained(home / "folder")
    save_file(vae_weights(pipe), home / "vae.safetensors")
    return {"folder": home / "folder", "file": home / "vae.safetensors"}


@pytest.mark.parametrize("form", ["folder", "file"])
@pytest.mark.parametrize("checkpoint", ["folder", "file"])
def test_another_vae(tiny: Tiny, single: Path, vaes: dict[str, Path], form: str, checkpoint: str) -> None:
    more: dict[str, Any] = {"config": str(tiny("sd15"))} if checkpoint == "file" else {}
    id = str(single if checkpoint == "file" else tiny("sd15"))
    plain: Any = pipeline(RUNTIME, id=id, **more)
    found: Any = pipeline(RUNTIME, id=id, vae=str(vaes[form]), **more)
    for name, weight in plain.pipe.vae.state_dict().items():
        assert torch.allclose(found.pipe.vae.state_dict()[name], 1.1 * weight)
    assert torch.equal(found.pipe.unet.conv_in.weight, plain.pipe.unet.conv_in.weight)
    assert found.weights_sha256 != plain.weights_sha256


def test_a_vae_for_a_pipeline_without_one(tiny: Tiny, vaes: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="has no VAE; leave it out"):
        pipeline(RUNTIME, id=str(tiny("kandinsky22")), vae=str(vaes["folder"]))


# text encoders whose last layers are left out


@pytest.mark.parametrize(("loop", "family"), [("denoise", "sd15"), ("pipeline", "sd15"), ("denoise", "sdxl")])
def test_clip_skip_is_that_of_diffusers(
    run: Any, tiny: Tiny, loop: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # diffusers asks for an attribute that transformers 5.6 removed.
    monkeypatch.setattr(CLIPTextModel, "text_model", property(lambda self: self), raising=False)
    skip = 1 if family == "sd15" else 0
    words = (*WORDS, f"model.id={tiny(family)}", f"loop={loop}")
    found = drawn(run(*words, f"model.clip_skip={skip}"))
    call = {"guidance_scale": 3.0, "clip_skip": skip}
    assert psnr(found, by_diffusers(tiny(family), "DDIMScheduler", call=call)) > 45
    if family == "sd15":
        assert psnr(found, drawn(run(*words))) < 40


@pytest.mark.parametrize(
    ("family", "skip", "message"),
    [
        ("sd15", 2, "model.clip_skip=2 must be from 0 to 1"),
        ("sd15", -1, "model.clip_skip=-1 must be from 0 to 1"),
        ("flux", 1, "model.clip_skip=1: a FluxPipeline takes none; leave it out"),
    ],
)
def test_layers_that_cannot_be_left_out(tiny: Tiny, family: str, skip: int, message: str) -> None:
    size: dict[str, Any] = {"height": 64, "width": 64} if family == "flux" else {}
    with pytest.raises(InputError, match=message):
        pipeline(RUNTIME, id=str(tiny(family)), clip_skip=skip, **size)


def test_conditions_without_the_last_layer(tiny: Tiny) -> None:
    model: Any = pipeline(RUNTIME, id=str(tiny("sd15")), clip_skip=1)
    found = model.conditions(Request("a cat"), range(1)).positive["encoder_hidden_states"]
    encoder, tokens = model.pipe.text_encoder, model.pipe.tokenizer
    ids = tokens("a cat", padding="max_length", max_length=77, return_tensors="pt").input_ids
    states = encoder(ids, output_hidden_states=True).hidden_states[-2]
    norm = getattr(encoder, "text_model", encoder).final_layer_norm
    assert torch.allclose(found, norm(states), atol=1e-6)
