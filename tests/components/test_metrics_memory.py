"""The memory of metrics does not grow with the samples beyond their features and their weights in halves."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffexp.components.metrics import feature_metric, frechet, half_samples, kid, neighbours
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.density_coverage import DensityCoverage
from diffexp.components.metrics.fid import FID
from diffexp.components.metrics.half_samples import SPLITS, Estimate, estimate, mean_of, splits
from diffexp.components.metrics.kid import KID
from diffexp.components.metrics.precision_recall import PrecisionRecall


class LargestTensor(TorchDispatchMode):
    """Notes the bytes of the largest tensor that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.bytes = max([self.bytes, *(leaf.nbytes for leaf in made)])
        return result


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts so small that 1,000 samples are many."""
    monkeypatch.setattr(half_samples, "BLOCK", 1 << 14)
    monkeypatch.setattr(frechet, "CHUNK", 40)
    monkeypatch.setattr(kid, "CHUNK", 40)
    monkeypatch.setattr(kid, "COLUMNS", 120)
    monkeypatch.setattr(neighbours, "CHUNK", 40)
    monkeypatch.setattr(neighbours, "COLUMNS", 120)


def computed(metric: type[FID] | type[KID], count: int) -> tuple[Estimate, int]:
    """The value for so many samples, and the bytes of the largest tensor."""
    made = metric()
    made.batches += torch.randn(count, 64, generator=torch.Generator().manual_seed(0)).split(16)
    facts = RunFacts(1, count, 1.0, 1.0, None, None, None, cast(Any, None), indices=tuple(range(count)))
    with LargestTensor() as largest:
        (value,) = made.compute(facts).values()
    return value, largest.bytes


@pytest.mark.parametrize("metric", [FID, KID])
def test_the_largest_tensor_is_no_larger_for_many_samples(metric, small_parts):
    few, many = (computed(metric, count)[1] for count in (600, 1200))
    assert many <= few


@pytest.mark.parametrize("metric", [FID, KID])
def test_parts_make_no_difference(metric, request):
    at_once, _ = computed(metric, 300)
    request.getfixturevalue("small_parts")
    in_parts, _ = computed(metric, 300)
    assert in_parts.value == pytest.approx(at_once.value, rel=1e-11)
    assert torch.allclose(in_parts.halves, at_once.halves, rtol=1e-10)


@pytest.mark.parametrize("metric", [PrecisionRecall, DensityCoverage])
def test_distances_between_all_samples_are_never_in_memory_at_once(metric, request):
    def found(count: int) -> tuple[dict[str, Any], int]:
        made = metric()
        made.batches += torch.randn(count, 64, generator=torch.Generator().manual_seed(0)).split(16)
        facts = RunFacts(1, count, 1.0, 1.0, None, None, None, cast(Any, None), indices=tuple(range(count)))
        with LargestTensor() as largest:
            return dict(made.compute(facts)), largest.bytes

    whole, _ = found(700)
    request.getfixturevalue("small_parts")
    neighbours.radii_of_reference.cache_clear()
    found(700)
    (parts, few), (_, many) = found(700), found(1400)
    features = 1400 * 64 * 4
    assert many <= max(few, features) < 700 * 1400 * 4
    for name, value in whole.items():
        assert torch.allclose(torch.as_tensor(parts[name]), torch.as_tensor(value), atol=2e-3), name


def test_a_statistic_gets_its_weightings_in_blocks(monkeypatch):
    values = torch.rand(500, dtype=torch.float64)
    whole, shapes = estimate(mean_of(values), range(500)), list[tuple[int, ...]]()

    def mean(weighting: Tensor) -> Tensor:
        shapes.append(tuple(weighting.shape))
        assert weighting.dtype == torch.float64
        return (values @ weighting) / weighting.sum(dim=0)

    monkeypatch.setattr(half_samples, "BLOCK", 500 * 100)
    found = estimate(mean, range(500))
    assert shapes == [(500, 100)] * 5 + [(500, 13)]
    assert found.value == pytest.approx(whole.value)
    assert torch.allclose(found.halves, whole.halves)


def test_halves_are_kept_as_bytes():
    assert splits(range(30)).dtype == torch.uint8
    assert splits(range(30)).shape == (30, SPLITS)


def test_features_of_many_batches_are_few_tensors_in_their_order(monkeypatch):
    monkeypatch.setattr(feature_metric, "BLOCK", 10)
    images, made = torch.rand(24, 1, 32, 32, generator=torch.Generator().manual_seed(0)), FID()
    for batch in images.split(3):
        made.update(batch * 2 - 1, batch)
    assert [len(rows) for rows in made.batches] == [12, 12]
    assert torch.allclose(torch.cat(made.batches), made.features.of(images), atol=1e-4)
