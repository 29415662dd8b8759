"""Statistics of a folder of images, and the metrics that compare with them."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffexp.cli.train import main
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.density_coverage import DensityCoverage
from diffexp.components.metrics.feature_set import extract_features
from diffexp.components.metrics.fid import FID
from diffexp.components.metrics.frechet import moments
from diffexp.components.metrics.kid import KID
from diffexp.components.metrics.mind import MIND
from diffexp.components.metrics.precision_recall import PrecisionRecall
from diffexp.components.metrics.reference_file import load_reference
from diffexp.components.metrics.traits import needed_by
from diffexp.components.pixels import to_tensor
from diffexp.errors import InputError
from diffexp.experiment.result import RunResult
from diffexp.train.reference import ImageFolder, ReferenceRecipe, make_reference


def recipe(**changed: Any) -> ReferenceRecipe:
    return ReferenceRecipe(**{"file": None, "samples": 5000, "size": None, "seed": 0, "against": None} | changed)


def save_images(folder: Path, count: int, seed: int = 0, size: tuple[int, int] = (32, 32), mode: str = "L") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = random.integers(0, 256, (4, 4, 3), np.uint8)
        image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)
        image.save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 images of class 3 and 70 of class 7."""
    folder = tmp_path_factory.mktemp("reference") / "digits"
    save_images(folder / "3", 80, 3)
    save_images(folder / "7", 70, 7)
    return folder


@pytest.fixture(scope="module")
def made(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reference(str(classes), "mnist_cnn", recipe(samples=100), tmp_path_factory.mktemp("files"))


def test_a_file_has_the_moments_of_all_images_and_the_features_of_some(classes: Path, made: Path):
    assert made.name == "digits_mnist_cnn.safetensors"
    found = load_reference(str(made))
    images = to_tensor([Image.open(file) for file in sorted(classes.rglob("*.png"))])
    features = extract_features(found.network, images)
    for ours, theirs in zip(found.reference.moments, moments(features)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert found.name == "mnist_cnn" and found.reference.num_samples == 150
    assert found.reference.samples.shape == (100, 64)
    assert found.reference.labels is not None
    assert found.reference.labels.tolist().count(3) == 50
    stored = {tuple(row) for row in found.reference.samples.half().tolist()}
    near = torch.cdist(found.reference.samples, features).min(dim=1).values
    assert len(stored) == 100 and near.max() < 0.05


def test_samples_of_a_class_are_compared_with_real_images_of_it(made: Path):
    known = load_reference(str(made))
    assert known.reference.labels is not None
    threes = known.reference_of([3, 3])
    assert torch.equal(threes.samples, known.reference.samples[known.reference.labels == 3])
    assert known.reference_of([3, 7, 3, 7]) is known.reference and known.reference_of(None) is known.reference
    mixed = known.reference_of([3, 3, 3, 7])
    assert len(mixed.samples) == 50 + 17
    with pytest.raises(InputError, match="no real images of class 5"):
        known.reference_of([5, 5])


def test_a_reference_without_classes_stands_for_all_of_them(tmp_path: Path):
    folder = save_images(tmp_path / "flat", 5)
    known = load_reference(str(make_reference(str(folder), "efficientnet_lite0", recipe(), tmp_path)))
    assert known.reference.labels is None and known.reference_of([3, 3]) is known.reference


def test_metrics_share_a_reference_and_its_features(made: Path):
    fid, kid = FID(reference=str(made)), KID(features="mnist_cnn", reference=str(made))
    assert fid.features.reference is kid.features.reference and fid.features.name == "mnist_cnn"
    mnist: Any = SimpleNamespace(id="mnist", shape=(1, 32, 32), feature_domain="mnist")
    assert fid.applies(mnist) is None and fid.features.reference.num_samples == 150


def test_a_run_compares_with_the_users_images(made: Path, run: Callable[..., RunResult]):
    choices = ["metric=[fid,kid]", f"metric.fid.reference={made}", "num_samples=8", "steps=2"]
    metrics = run(*choices, "tracker=none").metrics
    shipped = run(*choices[:1], *choices[2:], "tracker=none").metrics
    assert metrics["kid/mnist_cnn"] == shipped["kid/mnist_cnn"]
    assert metrics["fid/mnist_cnn@digits"] != shipped["fid/mnist_cnn"]


def test_values_of_different_real_images_have_different_names(classes: Path, made: Path, tmp_path: Path):
    other = make_reference(str(classes), "mnist_cnn", recipe(file=str(tmp_path / "my photos.safetensors")), tmp_path)
    known = load_reference(str(other))
    assert (known.label, load_reference(str(made)).label) == ("mnist_cnn@my_photos", "mnist_cnn@digits")
    assert needed_by(f"fid/{known.label}", {"fid": 64, "fid/mnist_cnn": 5}) == 5
    few: Any = RunFacts(5, 8, 1.0, 1.0, None, None, None, None, few_on_purpose=True)  # pyright: ignore[reportArgumentType]
    kinds = [FID, KID, MIND, PrecisionRecall, DensityCoverage]
    for kind in kinds:
        metric = kind(reference=str(other))
        metric.batches.append(known.reference.samples[:8])
        assert all(name.endswith("/mnist_cnn@my_photos") for name in metric.compute(few))


def test_other_features_or_weights_are_refused_in_one_line(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match=r"has the features mnist_cnn, not efficientnet_lite0; make another"):
        load_reference(str(made), "efficientnet_lite0")
    with pytest.raises(InputError, match="no such file; make it with .*task=reference"):
        load_reference(str(tmp_path / "none.safetensors"))
    (tmp_path / "other.safetensors").write_bytes(b"something else")
    with pytest.raises(InputError, match="is no file of real images' statistics"):
        load_reference(str(tmp_path / "other.safetensors"))
    monkeypatch.setattr("diffexp.components.metrics.reference_file.weights_sha256", lambda network: "0" * 64)
    with pytest.raises(InputError, match="made with other weights of mnist_cnn"):
        load_reference(str(made))


def test_folders_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path):
    with pytest.raises(InputError, match="no such folder"):
        ImageFolder.find(str(tmp_path / "none"))
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    with pytest.raises(InputError, match="is a folder without images"):
        ImageFolder.find(str(tmp_path / "empty"))
    both = save_images(tmp_path / "both", 2)
    save_images(both / "part", 1)
    with pytest.raises(InputError, match=r"images of its own \(000.png\) and in part"):
        ImageFolder.find(str(both))
    with pytest.raises(InputError, match="takes two or more"):
        make_reference(str(save_images(tmp_path / "one", 1)), "mnist_cnn", recipe(), tmp_path)
    broken = save_images(tmp_path / "broken", 3)
    content = (broken / "001.png").read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"text", content.replace(b"IHDR", b"IHDX")):
        (broken / "001.png").write_bytes(damaged)
        with pytest.raises(InputError, match=r"001\.png cannot be read as an image") as raised:
            make_reference(str(broken), "mnist_cnn", recipe(), tmp_path)
        assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("*.safetensors"))


def test_images_of_different_sizes_are_cropped_where_that_is_asked_for(tmp_path: Path):
    folder = save_images(tmp_path / "mixed", 3, mode="RGB")
    Image.new("CMYK", (50, 40)).save(folder / "100.jpg")
    with pytest.raises(InputError, match=r"100\.jpg is 50 x 40, and 000\.png 32 x 32; reference\.size=32 crops"):
        make_reference(str(folder), "mnist_cnn", recipe(), tmp_path)
    path = make_reference(str(folder), "mnist_cnn", recipe(size=(24, 28)), tmp_path)
    assert load_reference(str(path)).reference.num_samples == 4


def test_classes_are_numbers_or_in_the_order_of_names(tmp_path: Path):
    for name in ("10", "2"):
        save_images(tmp_path / "numbers" / name / "deep", 2)
    for name in ("dog", "cat"):
        save_images(tmp_path / "names" / name, 2)
    numbers, names = (ImageFolder.find(str(tmp_path / part)) for part in ("numbers", "names"))
    assert numbers.labels is not None and sorted(numbers.labels.tolist()) == [2, 2, 10, 10]
    assert names.labels is not None and names.labels.tolist() == [0, 0, 1, 1] and names.classes == ["cat", "dog"]


def test_the_command_writes_the_file_and_compares(
    classes: Path,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    words = ["task=reference", f"images={classes}", "features=mnist_cnn", f"folder={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["train", *words, f"reference.against={made}"])
    main()
    said = capsys.readouterr()
    path = tmp_path / "digits_mnist_cnn.safetensors"
    assert f"metric.fid.reference={path}" in said.out
    assert load_reference(str(path)).reference.num_samples == 150
    distance = (tmp_path / "train.log").read_text().partition(f"fid/mnist_cnn to {made}: ")[2]
    assert float(distance) == pytest.approx(0, abs=1e-9)
    monkeypatch.setattr(sys, "argv", ["train", "task=reference", f"folder={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "needs images=DIR" in capsys.readouterr().err
