"""The feature network behind fid and kid, and its training."""

import logging
from pathlib import Path

import pytest
import torch

from diffexp.components.metrics.feature_set import extract_features
from diffexp.components.metrics.features import MnistFeatures, load_features, read_features
from diffexp.errors import InputError
from diffexp.train.data import Digits
from diffexp.train.features import FeatureTraining, _shift, train_features

RECIPE = FeatureTraining(epochs=2, batch_size=16, learning_rate=2e-3, max_shift=1, reference_samples=20, seed=0)


@pytest.fixture(scope="module")
def bars() -> Digits:
    """Two easy classes: a bright column, a bright row, both at random places."""
    generator = torch.Generator().manual_seed(0)
    images, labels = -torch.ones(96, 1, 32, 32), torch.arange(96) % 2
    for image, label, place in zip(images, labels, torch.randint(4, 28, (96,), generator=generator), strict=True):
        image[0].select(int(label), int(place)).fill_(1.0)
    return Digits(images, labels)


def test_shipped_network_is_small_accurate_and_standardised():
    known = load_features("mnist_cnn")
    assert sum(p.numel() for p in known.network.parameters()) < 400_000
    assert float(known.metadata["test_accuracy"]) >= 0.992
    assert known.reference.num_samples == 60_000
    mean = known.reference.total / known.reference.num_samples
    variance = known.reference.outer.diagonal() / known.reference.num_samples - mean**2
    assert mean.abs().max() < 0.1
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=0.2, atol=0)


def test_shipped_file_stays_below_a_megabyte_and_a_half():
    from diffexp.components.metrics.feature_set import WEIGHTS

    assert (WEIGHTS / "mnist_cnn.safetensors").stat().st_size < 1_500_000


def test_shapes():
    network = MnistFeatures().eval()
    images = torch.rand(3, 1, 32, 32)
    assert network(images).shape == (3, network.num_features)
    assert network.logits(images).shape == (3, 10)


def test_extracting_in_batches_changes_nothing():
    network, images = load_features("mnist_cnn").network, torch.rand(7, 1, 32, 32)
    torch.testing.assert_close(extract_features(network, images, batch_size=3), network(images))


def test_unknown_features_name_what_there_is():
    with pytest.raises(InputError, match="features=inception is not known; choose mnist_cnn"):
        load_features("inception")


def test_missing_file_says_how_to_make_it(tmp_path: Path):
    with pytest.raises(InputError, match=r"python -m diffexp\.train task=features"):
        read_features(tmp_path / "none.safetensors")


def test_shift_moves_and_brings_in_black():
    torch.manual_seed(0)
    image = torch.zeros(20, 1, 8, 8)
    image[:, :, 4, 4] = 1
    moved = _shift(image, 2)
    places = {tuple(place) for place in moved[:, 0].nonzero()[:, 1:].tolist()}
    assert (moved.flatten(1).sum(1) == 1).all()
    assert len(places) > 5
    assert all(2 <= row <= 6 and 2 <= column <= 6 for row, column in places)


def test_training_learns_and_writes_what_ships(bars: Digits, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        path = train_features(bars, bars, RECIPE, tmp_path)
    made = read_features(path)
    assert path.name == "mnist_cnn.safetensors"
    assert made.reference.num_samples == 96
    assert made.reference.samples.shape == (20, 64)
    assert set(made.metadata) >= {"test_accuracy", "floor_test", "floor_train"}
    assert "test_accuracy" in caplog.text
    features = extract_features(made.network, (bars.images + 1) / 2)
    torch.testing.assert_close(made.reference.total, features.double().sum(0))


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(
    bars: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = read_features(train_features(bars, bars, RECIPE, tmp_path / "whole")).network.state_dict()

    import diffexp.train.features as training

    def stop(*args: object) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_accuracy", stop)  # called right after the first epoch was saved
        with pytest.raises(KeyboardInterrupt):
            train_features(bars, bars, RECIPE, tmp_path / "resumed")
    resumed = read_features(train_features(bars, bars, RECIPE, tmp_path / "resumed")).network.state_dict()
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=0)
