"""Guidance inside of the interval only, and the share of digits that are what was asked for."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffexp.config import hydra_session
from diffexp.discovery import discover
from diffexp.models.base import Condition
from diffexp.preflight import Preflight

CATALOG = discover()
LIMITED, CFG = (CATALOG.build("guidance", {"name": name}) for name in ("limited", "cfg"))
CONDITION = Condition({"label": torch.tensor([1, 2])}, {"label": torch.tensor([10, 10])}, ["1", "2"])


class Network:
    """Remembers the sizes of its batches and answers with label and time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.sizes.append(len(u))
        return u + condition.positive["label"].view(-1, 1, 1, 1) + t.view(-1, 1, 1, 1)


def ask(guidance: Any, times: list[float]) -> tuple[Tensor, list[int]]:
    network = Network()
    return guidance(network, 3.0)(torch.zeros(2, 1, 2, 2), torch.tensor(times), CONDITION), network.sizes


@pytest.mark.parametrize("t", [500.0, 200.1, 800.0])
def test_inside_it_is_classifier_free_guidance(t: float) -> None:
    limited = CATALOG.build("guidance", {"name": "limited", "low": 200.0, "high": 800.0})
    assert torch.equal(ask(limited, [t, t])[0], ask(CFG, [t, t])[0])
    assert ask(limited, [t, t])[1] == [4]


@pytest.mark.parametrize("t", [0.0, 200.0, 800.1, 999.0])
def test_outside_it_is_the_model_at_the_cost_of_the_model(t: float) -> None:
    limited = CATALOG.build("guidance", {"name": "limited", "low": 200.0, "high": 800.0})
    answer, sizes = ask(limited, [t, t])
    assert torch.equal(answer, Network()(torch.zeros(2, 1, 2, 2), torch.tensor([t, t]), CONDITION))
    assert sizes == [2]


def test_rows_at_different_levels() -> None:
    answer, _ = ask(LIMITED, [900.0, 300.0])
    assert torch.equal(answer[:1], ask(LIMITED, [900.0, 900.0])[0][:1])
    assert torch.equal(answer[1:], ask(LIMITED, [300.0, 300.0])[0][1:])
    assert not torch.equal(answer[1:], ask(LIMITED, [900.0, 900.0])[0][1:])


def accuracy(captions: list[str], digits: list[int]) -> dict[str, float]:
    """Of images whose first row says, with 0.9 of the probability, which digit they are."""
    metric = CATALOG.build("metric", {"name": "accuracy"})
    probabilities = torch.full((len(digits), 10), 0.1 / 9)
    probabilities[range(len(digits)), digits] = 0.9
    network = SimpleNamespace(logits=lambda images: probabilities[images[:, 0, 0, 0].mul(255).round().long()].log())
    metric.features = SimpleNamespace(name="stub", network=network)
    images = (torch.arange(len(digits)) / 255).view(-1, 1, 1, 1).expand(-1, 1, 32, 32)
    for batch in images.split(2):
        metric.update(batch * 2 - 1, batch)
    return metric.compute(SimpleNamespace(captions=captions))


def test_accuracy_counts_the_digits_that_were_asked_for() -> None:
    found = accuracy(["3", "1", "4", "1", "5"], [3, 1, 4, 7, 5])
    assert found["accuracy/stub"] == pytest.approx(0.8)
    assert found["confidence/stub"] == pytest.approx((4 * 0.9 + 0.1 / 9) / 5)
    assert accuracy(["no label", "1", "2"], [9, 1, 3])["accuracy/stub"] == pytest.approx(0.5)
    assert accuracy(["no label"], [9]) == {}


def test_accuracy_is_for_digits() -> None:
    metric = CATALOG.build("metric", {"name": "accuracy"})
    assert metric.applies(SimpleNamespace(id="mnist", shape=(1, 32, 32))) is None
    assert metric.applies(SimpleNamespace(id="google/ddpm-cat-256", shape=(3, 256, 256)))


def test_its_configs() -> None:
    with hydra_session(CATALOG) as hydra:
        checked = Preflight(hydra, CATALOG).check(["experiment=limited_guidance"], multirun=False)
        early = Preflight(hydra, CATALOG).check(["guidance=early", "guidance.high=900"], multirun=False)
    assert checked.multirun
    assert set(checked.config.metric) == {"cost", "fid", "accuracy"}
    assert dict(early.config.guidance) == {"name": "limited", "low": 579.0, "high": 900.0}
