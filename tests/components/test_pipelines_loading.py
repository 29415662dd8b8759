"""Where text-to-image checkpoints come from, and what is said of those that cannot be used."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from diffexp.components.checkpoints import download
from diffexp.components.checkpoints.pipeline_files import choose_files, digest, find_pipeline, read_index
from diffexp.components.models.base import Request, Runtime
from diffexp.components.models.pipeline import pipeline
from diffexp.components.models.text_to_image.black_box import TextToImage
from diffexp.components.models.text_to_image.latent import Kandinsky22, StableDiffusion
from diffexp.errors import InputError
from diffexp.experiment.run import RunResult
from diffexp.plan.predictions import Prediction
from tests.checkpoints import edit_json, put_in_cache
from tests.pipeline_runs import Tiny
from tests.runs import record

RUNTIME = Runtime(torch.device("cpu"), torch.float32, False)
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
PRIOR, DECODER = "kandinsky-community/kandinsky-2-2-prior", "kandinsky-community/kandinsky-2-2-decoder"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.mark.parametrize(
    ("family", "kind", "shape", "prediction", "scale"),
    [
        ("sd15", StableDiffusion, (4, 16, 16), Prediction.EPSILON, 7.5),
        ("sd2", StableDiffusion, (4, 16, 16), Prediction.V, 7.5),
        ("sdxl", StableDiffusion, (4, 16, 16), Prediction.EPSILON, 5.0),
        ("kandinsky22", Kandinsky22, (4, 16, 16), Prediction.EPSILON, 4.0),
        ("sd3", TextToImage, (4, 16, 16), Prediction.FLOW, 7.0),
        ("flux", TextToImage, (256, 16), Prediction.FLOW, 3.5),
    ],
)
def test_every_family_from_a_folder(
    tiny: Tiny, family: str, kind: type, shape: tuple[int, ...], prediction: Prediction, scale: float
) -> None:
    size: dict[str, Any] = {"height": 64, "width": 64} if family == "flux" else {}
    model = pipeline(RUNTIME, id=str(tiny(family)), **size)
    assert type(model) is kind and isinstance(model, TextToImage)
    assert (model.shape, model.prediction, model.guidance_scale, model.clip) == (shape, prediction, scale, None)
    assert model.weights_sha256 and len(model.weights_sha256) == 64
    assert model.dtype == torch.float32
    assert model.describe(model.conditions(Request(prompt="a cat"), range(2))) == ["a cat", "a cat"]


def test_the_presets_find_their_checkpoints_in_the_cache(
    run: Callable[..., RunResult], tiny: Tiny, cache: Path
) -> None:
    put_in_cache(cache, SD15, tiny("sd15"))
    put_in_cache(cache, "stabilityai/stable-diffusion-xl-base-1.0", tiny("sdxl"))
    put_in_cache(cache, PRIOR, tiny("kandinsky22_prior"))
    put_in_cache(cache, DECODER, tiny("kandinsky22_decoder"))
    words = ("prompt=a cat", "steps=2", "num_samples=1", "batch_size=1")
    for preset, id in (("sd15", SD15), ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0"), ("kandinsky22", DECODER)):
        result = run(f"model={preset}", *words)
        assert record(result.folder)["model_id"] == id
        assert (result.folder / "samples" / "000000.png").is_file()


def test_the_decoders_card_names_its_prior(tiny: Tiny, cache: Path) -> None:
    put_in_cache(cache, PRIOR, tiny("kandinsky22_prior"))
    model = pipeline(RUNTIME, id=str(tiny("kandinsky22_decoder")))
    both = pipeline(RUNTIME, id=str(tiny("kandinsky22_decoder")), prior=str(tiny("kandinsky22_prior")))
    assert isinstance(model, Kandinsky22) and isinstance(both, Kandinsky22)
    assert model.weights_sha256 == both.weights_sha256
    assert model.weights_sha256 != digest(tiny("kandinsky22_decoder"), [])


def test_a_decoder_without_its_prior(tiny: Tiny, cache: Path) -> None:
    message = f"model.prior={PRIOR} is neither a folder nor in the cache .*hf download {PRIOR}"
    with pytest.raises(InputError, match=message):
        pipeline(RUNTIME, id=str(tiny("kandinsky22_decoder")))
    bare = shutil.copytree(tiny("kandinsky22_decoder"), cache / "bare", ignore=shutil.ignore_patterns("README.md"))
    with pytest.raises(InputError, match="is Kandinsky's decoder alone; name its prior as well: model.prior="):
        pipeline(RUNTIME, id=str(bare))


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Path:
    """Of the SD checkpoint, to be spoiled."""
    return Path(shutil.copytree(tiny("sd15"), tmp_path / "copy"))


def remove_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def remove_weights(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()


def remove_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")


def pickle_weights(folder: Path) -> None:
    remove_weights(folder)
    torch.save({}, folder / "unet" / "diffusion_pytorch_model.bin")


def own_pipeline(folder: Path) -> None:
    edit_json(folder / "model_index.json", _class_name=["pipeline", "MyPipeline"])


def own_part(folder: Path) -> None:
    edit_json(folder / "model_index.json", unet=["my_unet", "MyUNet"])
    (folder / "unet" / "my_unet.py").write_text("raise SystemExit('code from a checkpoint was run')")


def foreign_part(folder: Path) -> None:
    edit_json(folder / "model_index.json", unet=["os", "system"])


def auto_part(folder: Path) -> None:
    """Its class is in a file that an Auto class of transformers would import."""
    edit_json(folder / "model_index.json", text_encoder=["transformers", "AutoModel"])
    edit_json(folder / "text_encoder" / "config.json", auto_map={"AutoModel": "mine.MyEncoder"})


def other_kind(folder: Path) -> None:
    edit_json(folder / "model_index.json", _class_name="AudioLDM2Pipeline")


def other_weights(folder: Path) -> None:
    edit_json(folder / "unet" / "config.json", block_out_channels=[16, 64])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_index, "is not a diffusers pipeline: it has no model_index.json"),
        (remove_weights, "is not complete: it lacks unet/\\*.safetensors"),
        (remove_tokenizer, "is not complete: it lacks tokenizer"),
        (pickle_weights, r"pickle format only \(unet/diffusion_pytorch_model.bin\).*model.allow_pickle=true"),
        (own_pipeline, "asks for a pipeline class of its own .* code from a checkpoint is never run"),
        (own_part, "asks for code of its own \\(unet/my_unet.py\\), which is never run"),
        (foreign_part, "takes its unet from os; only diffusers and transformers are trusted"),
        (auto_part, "asks for code of its own \\(text_encoder/transformers.py\\), which is never run"),
        (other_kind, "does not load|is not a text-to-image pipeline of diffusers"),
        (other_weights, "does not load"),
    ],
)
def test_a_folder_that_cannot_be_used(copy: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(copy)
    with pytest.raises(InputError, match=message) as caught:
        pipeline(RUNTIME, id=str(copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 30}, "model.height=30 is not a multiple of 8; the nearest is 32"),
        ({"variant": "fp8"}, "model.variant=fp8: .* has no such weights; choose auto or none"),
        ({"offload": "model"}, "model.offload=model needs a GPU"),
        ({"revision": "main"}, "is a folder and has no revisions"),
        ({"lora": "{folder}"}, "model.lora=.* has no pytorch_lora_weights.safetensors"),
        ({"lora": "{folder}", "lora_file": "lora.pt"}, "model.lora_file=lora.pt: only safetensors files are loaded"),
        ({"controlnet": "./nowhere"}, "model.controlnet=./nowhere: no such folder"),
        ({"controlnet": "{folder}/unet"}, "is a UNet2DConditionModel, not a ControlNet"),
    ],
)
def test_options_that_cannot_be_used(tiny: Tiny, options: dict[str, Any], message: str) -> None:
    folder = str(tiny("sd15"))
    given: dict[str, Any] = {k: v.format(folder=folder) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(InputError, match=message):
        pipeline(RUNTIME, id=folder, **given)


def test_half_precision_weights_where_there_are_some(copy: Path) -> None:
    for weights in copy.glob("*/*.safetensors"):
        shutil.copy(weights, weights.with_name(f"{weights.stem}.fp16.safetensors"))
    names = [path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()]
    index = read_index(copy, "it")
    full, half = (choose_files(index, names, "it", variant, False) for variant in (None, "fp16"))
    assert full.variant is None and half.variant == "fp16" and len(full.files) == len(half.files)
    assert sum("fp16" in name for name in half.files) == 3 and not any("fp16" in name for name in full.files)
    model = pipeline(Runtime(dtype=torch.bfloat16), id=str(copy))
    assert model.dtype == torch.bfloat16
    for weights in copy.glob("*/*model.safetensors"):
        weights.unlink()
    found = find_pipeline(str(copy), "it", lambda index, names: choose_files(index, names, "it", None, False))
    assert found.choice.variant == "fp16"  # better than nothing


def test_shards_count_when_all_are_there() -> None:
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    names = [
        "model_index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
    ]
    shards = [f"transformer/diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert choose_files(index, [*names, shards[0]], "it", None, False).missing
    assert choose_files(index, [*names, *shards], "it", None, False).files == (*names, *shards)


def test_a_file_in_the_cache_is_named_by_its_hash(tmp_path: Path) -> None:
    blob = tmp_path / ("ab" * 32)
    blob.write_bytes(b"x")
    (tmp_path / "model.safetensors").symlink_to(blob)
    (tmp_path / "copied.safetensors").write_bytes(b"x")
    one, other = (digest(tmp_path, [name]) for name in ("model.safetensors", "copied.safetensors"))
    assert one != other  # the name was believed
    assert digest(tmp_path, ["model.safetensors", "config.json"]) == one


def test_a_download_brings_only_what_is_needed(tiny: Tiny, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = tiny("sd15")
    names = [path.relative_to(remote).as_posix() for path in remote.rglob("*") if path.is_file()]
    extra = ["unet/diffusion_pytorch_model.bin", "v1-5-pruned.ckpt", "unet/diffusion_pytorch_model.fp16.safetensors"]
    siblings = [SimpleNamespace(rfilename=name) for name in (*names, *extra, "safety_checker/model.safetensors")]
    brought: list[str] = []

    def snapshot(_: str, *, allow_patterns: list[str], **__: Any) -> str:
        brought.extend(allow_patterns)
        return str(remote)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(download, "reachable", lambda url, seconds: True)
    monkeypatch.setattr(download.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=siblings))
    monkeypatch.setattr(download, "snapshot_download", snapshot)
    assert isinstance(pipeline(RUNTIME, id=SD15), StableDiffusion)
    assert not set(brought) & {*extra, "safety_checker/model.safetensors"}
    assert {"unet/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json", "vae/config.json"} <= set(brought)


def test_offline_the_answer_comes_before_diffusers_is_imported(tmp_path: Path) -> None:
    code = """
import sys
from diffexp.errors import InputError
from diffexp.components.models.base import Runtime
from diffexp.components.models.pipeline import pipeline
try:
    pipeline(Runtime(), id="someone/nothing")
except InputError as error:
    print(error)
print("diffusers" in sys.modules)
"""
    environment = os.environ | {"HF_HOME": str(tmp_path / "home")}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    line, imported = done.stdout.splitlines()
    assert "hf download someone/nothing" in line and imported == "False"
