import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from huggingface_hub import constants, errors
from safetensors.torch import load_file, save_file

from diffexp.components.checkpoints import download
from diffexp.components.models.base import Request, Runtime
from diffexp.components.models.hub import hub
from diffexp.components.models.unet import UNetModel
from diffexp.errors import InputError
from diffexp.plan.predictions import Clip, Prediction
from tests.checkpoints import edit_json, put_in_cache, save_flat_pipeline, save_pipeline, save_unet, tiny_unet

RUNTIME = Runtime(torch.device("cpu"), torch.float32, False)
ID = "someone/ddpm-tiny-16"
Save = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as diffexp can tell; what the hub answers is up to the test."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: SimpleNamespace(close=lambda: None))


def assert_is_the_network(model: UNetModel | Any) -> None:
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([999.0, 3.0])
    with torch.inference_mode():
        out = model.predict(x, t, model.conditions(Request(), range(2)))
        torch.testing.assert_close(out, tiny_unet()(x, t).sample, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("save", [save_pipeline, save_flat_pipeline, save_unet])
def test_from_a_folder(tmp_path: Path, save: Save) -> None:
    folder = save(tmp_path / "checkpoint", tiny_unet())
    model = hub(RUNTIME, id=str(folder))
    assert_is_the_network(model)
    assert (model.id, model.shape, model.clip) == (str(folder), (3, 16, 16), Clip(1.0))
    assert model.weights_sha256


@pytest.mark.parametrize("save", [save_pipeline, save_flat_pipeline])
@pytest.mark.parametrize("revision", [None, "main"])
def test_from_the_cache_without_a_network(tmp_path: Path, cache: Path, save: Save, revision: str | None) -> None:
    put_in_cache(cache, ID, save(tmp_path / "checkpoint", tiny_unet()))
    model = hub(RUNTIME, id=ID, revision=revision)
    assert_is_the_network(model)
    assert model.id == ID


def test_the_checkpoints_own_scheduler_config_counts(tmp_path: Path) -> None:
    own = diffusers.DDIMScheduler(
        prediction_type="v_prediction",
        clip_sample=False,
        beta_schedule="scaled_linear",
        num_train_timesteps=500,
        timestep_spacing="trailing",
    )
    model = hub(RUNTIME, id=str(save_flat_pipeline(tmp_path / "checkpoint", tiny_unet(), own)))
    assert (model.prediction, model.clip, model.training.spacing) == (Prediction.V, None, "trailing")
    assert model.schedule.num_train_timesteps == 500
    assert model.schedule.at(499).alpha ** 2 == pytest.approx(own.alphas_cumprod[-1].item(), rel=1e-6)


def test_attention_weights_under_their_first_names(tmp_path: Path) -> None:
    """As in the checkpoints of 2022, google/ddpm-church-256 among them."""
    folder = save_flat_pipeline(tmp_path / "checkpoint", tiny_unet())
    file = folder / "diffusion_pytorch_model.safetensors"
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    weights = load_file(file)
    renamed = {}
    for name, weight in weights.items():
        first = next((name.replace(new, past) for new, past in old.items() if new in name), name)
        renamed[first] = weight
    assert renamed.keys() != weights.keys()
    save_file(renamed, file, metadata={"format": "pt"})
    assert_is_the_network(hub(RUNTIME, id=str(folder)))


def test_a_network_must_say_how_large_its_pictures_are(tmp_path: Path) -> None:
    folder = save_unet(tmp_path, tiny_unet())
    edit_json(folder / "config.json", sample_size=None)
    with pytest.raises(InputError, match="does not give the size of its images: its config.json has no sample_size"):
        hub(Runtime(), id=str(folder))


def test_learned_variance_is_left_aside(tmp_path: Path) -> None:
    net = tiny_unet(out_channels=6)
    model = hub(RUNTIME, id=str(save_pipeline(tmp_path / "checkpoint", net)))
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([3.0])
    with torch.inference_mode():
        out = model.predict(x, t, model.conditions(Request(), [0]))
        torch.testing.assert_close(out, net(x, t).sample[:, :3], rtol=1e-4, atol=1e-5)


def test_class_conditional_checkpoints(tmp_path: Path) -> None:
    model = hub(RUNTIME, id=str(save_pipeline(tmp_path / "checkpoint", tiny_unet(num_class_embeds=5))))
    condition = model.conditions(Request(label=[4, 2]), range(3))
    assert condition.positive["class_labels"].tolist() == [4, 2, 4]
    assert condition.negative is None
    with pytest.raises(InputError, match=r"label=5 is not a class .* give 0 to 4$"):
        model.conditions(Request(label=5), range(3))
    with pytest.raises(InputError, match="knows its classes by number"):
        model.conditions(Request(prompt="cat"), range(3))
    with pytest.raises(InputError, match="negative_prompt=2: .* takes none"):
        model.conditions(Request(negative_prompt="2"), range(3))


def test_an_unconditional_checkpoint_takes_no_prompt(tmp_path: Path) -> None:
    model = hub(RUNTIME, id=str(save_pipeline(tmp_path / "checkpoint", tiny_unet())))
    assert model.conditions(Request(), range(2)).captions == ["unconditional"] * 2
    with pytest.raises(InputError, match=r"prompt=a cat: .* is unconditional; leave prompt out"):
        model.conditions(Request(prompt="a cat"), range(2))


def test_pickled_weights_only_on_request(tmp_path: Path) -> None:
    folder = save_pipeline(tmp_path / "checkpoint", tiny_unet(), safe=False)
    with pytest.raises(InputError, match=r"pickle format only \(unet/diffusion_pytorch_model.bin\).*allow_pickle=true"):
        hub(RUNTIME, id=str(folder))
    assert_is_the_network(hub(RUNTIME, id=str(folder), allow_pickle=True))


def remove_index(folder: Path) -> None:
    for name in ("model_index.json", "unet/config.json"):
        (folder / name).unlink()


def spoil_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("<html>")


def empty_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("{}")


def add_vae(folder: Path) -> None:
    edit_json(folder / "model_index.json", _class_name="LDMPipeline", vqvae=["diffusers", "VQModel"])


def other_network(folder: Path) -> None:
    edit_json(folder / "unet" / "config.json", _class_name="UNet2DConditionModel")


def other_scheduler(folder: Path) -> None:
    (folder / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "ScoreSdeVeScheduler"}')


def remove_scheduler(folder: Path) -> None:
    shutil.rmtree(folder / "scheduler")


def remove_weights(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()


def change_config(folder: Path) -> None:
    edit_json(folder / "unet" / "config.json", block_out_channels=[8, 32])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_index, "is not a diffusers checkpoint: it has neither unet/config.json nor config.json"),
        (spoil_index, "model_index.json is not valid JSON"),
        (empty_index, "names no unet"),
        (add_vae, "is a LDMPipeline with a vqvae; model=hub takes unconditional pixel models only"),
        (other_network, "is a UNet2DConditionModel"),
        (other_scheduler, "ScoreSdeVeScheduler has no betas"),
        (remove_scheduler, "no scheduler_config.json"),
        (remove_weights, "has no weights: no unet/diffusion_pytorch_model.safetensors"),
        (change_config, "does not load as the network of its config.json"),
    ],
)
def test_a_folder_that_cannot_be_used(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    folder = save_pipeline(tmp_path / "checkpoint", tiny_unet())
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        hub(RUNTIME, id=str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": "./nowhere"}, "model.id=./nowhere: no such folder"),
        ({"id": "some/where/else"}, "no such folder"),
        ({"id": ""}, "model.id= is neither a folder nor a hub id"),
        ({"id": "no spaces/allowed here"}, "is neither a folder nor a hub id such as google/ddpm-church-256"),
        ({"id": "."}, "neither unet/config.json nor config.json"),
        ({"id": ".", "revision": "main"}, "is a folder and has no revisions"),
    ],
)
def test_an_id_that_names_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        hub(RUNTIME, **options)


def test_neither_cache_nor_permission_to_download(cache: Path) -> None:
    with pytest.raises(InputError, match=f"nor in the cache {cache}, and HF_HUB_OFFLINE=1 forbids .*hf download {ID}"):
        hub(RUNTIME, id=ID)


@pytest.mark.usefixtures("cache")
def test_neither_cache_nor_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "create_connection", unreachable)
    with pytest.raises(InputError, match=r"huggingface.co cannot be reached; run 'hf download .* --revision v2' where"):
        hub(RUNTIME, id=ID, revision="v2")


@pytest.mark.usefixtures("cache")
def test_a_network_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(download, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: time.sleep(60) or socket.socket())
    with pytest.raises(InputError, match="cannot be reached"):
        hub(RUNTIME, id=ID)


def test_a_cache_that_lacks_the_weights(tmp_path: Path, cache: Path) -> None:
    snapshot = put_in_cache(cache, ID, save_pipeline(tmp_path / "checkpoint", tiny_unet()))
    remove_weights(snapshot)
    with pytest.raises(InputError, match="is only partly in the cache"):
        hub(RUNTIME, id=ID)


def test_another_kind_of_pipeline_in_the_cache(tmp_path: Path, cache: Path) -> None:
    add_vae(put_in_cache(cache, ID, save_pipeline(tmp_path / "checkpoint", tiny_unet())))
    with pytest.raises(InputError, match="LDMPipeline with a vqvae"):
        hub(RUNTIME, id=ID)


def http(kind: type[errors.HfHubHTTPError], status: int) -> Exception:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind("answer\nof the server", response=response)


@pytest.mark.usefixtures("cache", "online")
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (http(errors.RepositoryNotFoundError, 404), "neither a folder nor on the hub; check the spelling"),
        (http(errors.GatedRepoError, 403), "is gated: accept its terms"),
        (http(errors.RevisionNotFoundError, 404), "model.revision=v9: someone/ddpm-tiny-16 has no such branch"),
        (OSError("broken\npipe"), "could not be downloaded: broken pipe"),
    ],
)
def test_what_the_hub_may_answer(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def answer(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(download.HfApi, "model_info", answer)
    with pytest.raises(InputError, match=message) as caught:
        hub(RUNTIME, id=ID, revision="v9")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("online")
def test_a_download_brings_only_what_is_needed(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = save_flat_pipeline(tmp_path / "remote", tiny_unet())
    save_flat_pipeline(tmp_path / "pickled", tiny_unet(), safe=False)
    shutil.copy(tmp_path / "pickled" / "diffusion_pytorch_model.bin", remote)
    names = [SimpleNamespace(rfilename=path.name) for path in remote.iterdir()]
    brought: list[str] = []

    def snapshot(_: str, *, allow_patterns: list[str], cache_dir: str, **__: Any) -> str:
        assert cache_dir == str(cache)
        brought.extend(allow_patterns)
        return str(remote)

    monkeypatch.setattr(download.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=names))
    monkeypatch.setattr(download, "snapshot_download", snapshot)
    assert_is_the_network(hub(RUNTIME, id=ID))
    assert set(brought) == {
        "model_index.json",
        "config.json",
        "scheduler_config.json",
        "diffusion_pytorch_model.safetensors",
    }


def test_a_missing_checkpoint_is_reported_before_diffusers_is_imported(tmp_path: Path) -> None:
    """Importing it takes seconds, and the answer is due within five."""
    code = """
import sys, torch
from diffexp.errors import InputError
from diffexp.components.models.base import Runtime
from diffexp.components.models.hub import hub
try:
    hub(Runtime(torch.device("cpu"), None, False), id="someone/nothing")
except InputError as error:
    print(error)
print("diffusers" in sys.modules)
"""
    environment = os.environ | {"HF_HOME": str(tmp_path / "home")}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    line, imported = done.stdout.splitlines()
    assert str(tmp_path / "home" / "hub") in line
    assert imported == "False"
