from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffexp.components.models import mnist as module
from diffexp.components.models.base import Model, Request, Runtime
from diffexp.components.models.mnist import mnist
from diffexp.components.models.unet import UNet
from diffexp.errors import InputError
from diffexp.files import sha256_of_file
from diffexp.plan.predictions import Clip, Prediction
from tests.checkpoints import save_unet, tiny_digits_unet, tiny_unet

RUNTIME = Runtime(torch.device("cpu"), torch.float32, False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_unet(tmp_path_factory.mktemp("digits"), tiny_digits_unet().half())


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return mnist(RUNTIME, weights=str(folder))


def labels(model: Model, **request: Any) -> list[int]:
    return model.conditions(Request(**request), range(4)).positive["class_labels"].tolist()


def test_what_the_model_says_of_itself(model: Model, folder: Path) -> None:
    assert (model.id, model.shape, model.dtype) == ("mnist", (1, 32, 32), torch.float32)
    assert (model.prediction, model.clip, model.training.spacing) == (Prediction.EPSILON, Clip(1.0), "leading")
    assert model.schedule.num_train_timesteps == 1000
    assert model.training.scheduler_config["_class_name"] == "DDPMScheduler"
    assert model.weights_sha256 == sha256_of_file(folder / "diffusion_pytorch_model.safetensors")
    assert len(model.weights_sha256 or "") == 64


def test_predict_is_the_network(model: Model) -> None:
    x, t = torch.randn(3, 1, 32, 32), torch.tensor([999.0, 500.0, 0.0])
    condition = model.conditions(Request(), [0, 7, 12])
    with torch.inference_mode():
        out = model.predict(x, t, condition)
        expected = tiny_digits_unet().half().float()(x, t, class_labels=torch.tensor([0, 7, 2])).sample
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert out.is_contiguous()


def test_the_network_knows_its_dtype_also_after_a_change(folder: Path) -> None:
    net = UNet.from_pretrained(folder)
    assert net.dtype == torch.float32
    assert net.half().dtype == torch.float16
    assert net.double().dtype == torch.float64


def test_low_precision_comes_back_as_float32(folder: Path) -> None:
    model = mnist(Runtime(torch.device("cpu"), torch.bfloat16, False), weights=str(folder))
    full = mnist(RUNTIME, weights=str(folder))
    x, t = torch.randn(2, 1, 32, 32), torch.tensor([998.0, 999.0])
    condition = model.conditions(Request(), range(2))
    out = model.predict(x, t, condition)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, full.predict(x, t, condition), rtol=0.1, atol=0.05)


def test_gradients_reach_the_input_but_not_the_weights(model: Model) -> None:
    x = torch.randn(1, 1, 32, 32, requires_grad=True)
    model.predict(x, torch.tensor([10.0]), model.conditions(Request(), [0])).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_decode(model: Model) -> None:
    images = model.decode(torch.tensor([-1.0, 0.0, 1.0, 7.0]).view(4, 1, 1, 1))
    assert images.flatten().tolist() == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"label": 7}, [7, 7, 7, 7]),
        ({"label": [3, 1]}, [3, 1, 3, 1]),
        ({"label": "7"}, [7, 7, 7, 7]),
        ({"label": 10}, [10, 10, 10, 10]),
        ({"prompt": "seven"}, [7, 7, 7, 7]),
        ({"prompt": "7"}, [7, 7, 7, 7]),
        ({"prompt": "A Seven."}, [7, 7, 7, 7]),
        ({"prompt": "the digit 3"}, [3, 3, 3, 3]),
        ({"prompt": ["digit seven", "zero", "5"]}, [7, 0, 5, 7]),
    ],
)
def test_what_is_asked_for(model: Model, request_: dict[str, Any], expected: list[int]) -> None:
    assert labels(model, **request_) == expected


def test_a_sample_gets_its_digit_whatever_batch_it_is_in(model: Model) -> None:
    condition = model.conditions(Request(), [18, 3, 40])
    assert condition.positive["class_labels"].tolist() == [8, 3, 0]
    assert model.describe(condition) == ["8", "3", "0"]


def test_the_other_side_of_guidance(model: Model) -> None:
    condition = model.conditions(Request(label=7), range(2))
    assert condition.negative is not None
    assert condition.negative["class_labels"].tolist() == [10, 10]
    against = model.conditions(Request(label=7, negative_prompt="one"), range(2)).negative
    assert against is not None
    assert against["class_labels"].tolist() == [1, 1]
    assert model.describe(model.conditions(Request(label=10), [0])) == ["no label"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"label": 11}, "label=11 is not a class of model=mnist; give 0 to 9, or 10 for no label"),
        ({"label": -1}, "label=-1 is not a class"),
        ({"label": [1, 12]}, "label=12 is not a class"),
        ({"prompt": "12"}, "prompt=12 is not a class"),
        ({"prompt": "sevn"}, "prompt='sevn' .*; did you mean seven?"),
        ({"prompt": "a cat"}, "prompt='a cat' .*; it knows zero, one"),
        ({"prompt": "seven, three"}, r"for several, give a list: prompt=\[seven,three\]"),
        ({"prompt": []}, r"prompt=\[\] is empty"),
        ({"prompt": ""}, "prompt='' is not a class"),
        ({"prompt": "seven", "label": 7}, "prompt=seven and label=7 are both given"),
        ({"negative_prompt": "none"}, "negative_prompt='none' .*did you mean"),
    ],
)
def test_what_cannot_be_asked_for(model: Model, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        labels(model, **request_)
    assert "\n" not in str(caught.value)


def broken_weights(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"not a checkpoint")


def no_weights(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").unlink()


def bad_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def other_network(folder: Path) -> None:
    save_unet(folder, tiny_unet())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (broken_weights, "diffusion_pytorch_model.safetensors does not load"),
        (no_weights, "has no weights"),
        (bad_config, "config.json is not valid JSON"),
        (other_network, "num_class_embeds=11, not None"),
    ],
)
def test_a_folder_that_is_no_such_model(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    save_unet(tmp_path / "weights", tiny_digits_unet())
    spoil(tmp_path / "weights")
    with pytest.raises(InputError, match=message) as caught:
        mnist(RUNTIME, weights=str(tmp_path / "weights"))
    assert "\n" not in str(caught.value)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        mnist(RUNTIME, weights=str(tmp_path / "nowhere"))


def test_a_dtype_no_network_runs_in(folder: Path) -> None:
    with pytest.raises(InputError, match="dtype=int8: choose float16"):
        mnist(Runtime(torch.device("cpu"), torch.int8, False), weights=str(folder))


def test_the_weights_in_the_package() -> None:
    """At most 4 MB in half precision, and they tell noise from an empty image (x itself would be off by 0.08)."""
    file = module.WEIGHTS / "diffusion_pytorch_model.safetensors"
    assert file.stat().st_size <= 4_000_000
    model = mnist(RUNTIME)
    noise = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    level = model.schedule.at(500)
    x = level.sigma * noise - level.alpha
    with torch.inference_mode():
        out = model.predict(x, torch.full((4,), 500.0), model.conditions(Request(), range(4)))
    assert (out - noise).square().mean() < 0.03
