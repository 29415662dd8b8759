"""Distances to real images where classes were asked for: to real images of these classes."""

import logging
from typing import Any

import pytest
import torch

from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.density_coverage import DensityCoverage
from diffexp.components.metrics.features import load_features
from diffexp.components.metrics.fid import FID
from diffexp.components.metrics.frechet import moments
from diffexp.components.metrics.half_samples import Estimate
from diffexp.components.metrics.kid import KID
from diffexp.components.metrics.precision_recall import PrecisionRecall
from diffexp.components.models.base import Request
from diffexp.components.models.mnist import DIGITS
from diffexp.errors import InputError

KNOWN = load_features("mnist_cnn")
REAL = KNOWN.reference.samples
with torch.no_grad():
    LABELS = KNOWN.network.head(REAL).argmax(dim=1)


def facts(classes: Any) -> RunFacts:
    unknown: dict[str, Any] = dict.fromkeys(("scheduler_us_per_step", "peak_memory_mb", "plan", "model"))
    return RunFacts(nfe=5, num_samples=8, seconds=1.0, model_seconds=1.0, classes=classes, **unknown)


def measured(kind: Any, features: torch.Tensor, classes: Any) -> dict[str, float]:
    metric = kind()
    metric.batches.append(features)
    found = metric.compute(facts(classes))
    return {key: v.value if isinstance(v, Estimate) else float(torch.as_tensor(v).mean()) for key, v in found.items()}


def of_class(label: int) -> torch.Tensor:
    return REAL[label == LABELS]


def test_real_sevens_are_near_sevens_and_far_from_all_digits():
    sevens = of_class(7)
    assert len(sevens) == 512
    classes = [7] * 512
    assert measured(FID, sevens, classes)["fid/mnist_cnn"] == pytest.approx(0.0, abs=1e-6)
    assert measured(FID, sevens, None)["fid/mnist_cnn"] > 40
    assert measured(FID, of_class(1), classes)["fid/mnist_cnn"] > 40
    assert abs(measured(KID, sevens, classes)["kid/mnist_cnn"]) < 0.01 < measured(KID, sevens, None)["kid/mnist_cnn"]


def test_what_sevens_do_not_cover_is_not_held_against_them():
    sevens = of_class(7)
    for kind, name in ((PrecisionRecall, "recall/mnist_cnn"), (DensityCoverage, "coverage/mnist_cnn")):
        assert measured(kind, sevens, [7] * len(sevens))[name] > 0.95
        assert measured(kind, sevens, None)[name] < 0.2


def test_classes_are_mixed_in_the_proportions_of_the_samples():
    twice, once = of_class(3), of_class(8)
    reference = KNOWN.reference_of([3, 3, 8] * 100)
    assert reference.num_samples == len(twice) + len(twice) // 2
    wanted = torch.cat([twice, once[: len(twice) // 2]])
    for own, expected in zip(reference.moments, moments(wanted)):
        torch.testing.assert_close(own, expected)
    assert KNOWN.reference_of([3, 8, 3] * 100) is reference, "in whatever order"


@pytest.mark.parametrize("classes", [None, [], [None] * 5, [*range(10)] * 6 + [0, 1, 2, 3]])
def test_all_classes_alike_are_compared_with_all_training_images(classes: Any):
    assert KNOWN.reference_of(classes) is KNOWN.reference


def test_uneven_shares_of_all_classes_are_not_all_training_images():
    reference = KNOWN.reference_of([*range(10), 7, 7, 7])
    with torch.no_grad():
        counts = torch.bincount(KNOWN.network.head(reference.samples).argmax(dim=1))
    assert counts[7] == 512 and all(count == 128 for label, count in enumerate(counts) if label != 7)


@pytest.mark.parametrize("kind", [FID, KID, PrecisionRecall, DensityCoverage])
def test_what_cannot_be_compared_is_left_out_with_the_reason(kind: Any, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        assert measured(kind, of_class(7)[:20], [7, None] * 10) == {}
    assert "skipped, some samples are of a class that was asked for and others of none" in caplog.messages[-1]


def test_a_class_without_real_images_is_refused():
    with pytest.raises(InputError, match="no real images of class 11"):
        KNOWN.reference_of([11, 7])


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request(), None),
        (Request(label=7), [7, 7, 7, 7]),
        (Request(prompt="seven"), [7, 7, 7, 7]),
        (Request(label=[3, 8]), [3, 8, 3, 8]),
        (Request(label=10), [None] * 4),
        (Request(label=[10, 2]), [None, 2, None, 2]),
    ],
)
def test_the_class_of_each_sample_is_the_one_asked_for(request_: Request, expected: Any):
    assert DIGITS.asked(request_, range(4)) == expected


def test_a_run_of_sevens_is_compared_with_sevens(run: Any):
    words = ["model=mnist", "steps=4", "scheduler=dpmpp_2m", "num_samples=40", "metric=fid", "snapshot_every=0"]
    alone, spread = (run(*words, *label).metrics["fid/mnist_cnn"] for label in (["label=7"], ["prompt=seven"]))
    assert alone == spread
    assert alone < run(*words).metrics["fid/mnist_cnn"] + 10
    assert alone < 40
