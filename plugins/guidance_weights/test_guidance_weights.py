"""Weights that change with the noise level, and the share of digits that are what was asked for."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import diffexp
from diffexp import Condition, Estimate, FlowSchedule, InputError, VESchedule, VPSchedule, discover

CATALOG = discover()
CONDITION = Condition({"label": torch.tensor([1, 2])}, {"label": torch.tensor([10, 10])}, ["1", "2"])
SHAPES = ("linear", "cosine", "inverse_linear", "sine", "v", "lambda")
SCHEDULES = (VPSchedule.from_betas(), VESchedule(), FlowSchedule())


def network(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
    return u + condition.positive["label"].view(-1, 1, 1, 1)


def weights(times: list[float], schedule: Any, scale: float = 3.0, **options: Any) -> list[float]:
    """What stands before m_pos - m_neg, besides m_pos itself, for samples at two timesteps."""
    model = SimpleNamespace(schedule=schedule)
    guided = CATALOG.build("guidance", {"name": "weighted", **options})(network, scale, model)
    found = guided(torch.zeros(2, 1, 2, 2), torch.tensor(times, dtype=torch.float64), CONDITION)[:, 0, 0, 0]
    return [(answer - own) / (own - 10) for answer, own in zip(found.tolist(), (1.0, 2.0))]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_weight_is_the_constant_one(shape: str, schedule: Any) -> None:
    low, high = schedule.timestep_range
    times = [low + (high - low) * (i + 0.5) / 100 for i in range(100)]
    found = [weights([t, t], schedule, shape=shape)[0] for t in times]
    assert sum(found) / len(found) == pytest.approx(2.0, abs=1e-3)
    assert min(found) >= -1e-6


@pytest.mark.parametrize(
    ("shape", "at_noise", "in_the_middle", "at_the_sample"),
    [
        ("linear", 0, 1, 2),
        ("cosine", 0, 1, 2),
        ("inverse_linear", 2, 1, 0),
        ("sine", 2, 1, 0),
        ("v", 2, 0, 2),
        ("lambda", 0, 2, 0),
    ],
)
def test_shapes(shape: str, at_noise: float, in_the_middle: float, at_the_sample: float) -> None:
    for t, expected in ((1000.0, at_noise), (500.0, in_the_middle), (0.0, at_the_sample)):
        assert weights([t, t], FlowSchedule(), shape=shape)[1] == pytest.approx(2 * expected, abs=1e-5)


def test_rows_have_the_weights_of_their_own_levels() -> None:
    assert weights([900.0, 250.0], FlowSchedule()) == pytest.approx([0.4, 3.0], abs=1e-5)
    at_quarter = 2 * (1 - math.cos(math.pi / 4))
    assert weights([750.0, 750.0], FlowSchedule(), shape="cosine") == pytest.approx([at_quarter] * 2, abs=1e-5)


def test_without_guidance_it_is_the_model() -> None:
    make = CATALOG.build("guidance", {"name": "weighted"})
    model = SimpleNamespace(schedule=FlowSchedule())
    assert make.func(network, 1.0, model) is network
    u, t, alone = torch.zeros(2, 1, 2, 2), torch.zeros(2), Condition(CONDITION.positive, None, ["1", "2"])
    assert torch.equal(make(network, 3.0, model)(u, t, alone), network(u, t, alone))


def accuracy(captions: list[str], digits: list[int]) -> dict[str, Any]:
    """Of images whose first row says, with 0.9 of the probability, which digit they are."""
    metric = CATALOG.build("metric", {"name": "accuracy"})
    probabilities = torch.full((len(digits), 10), 0.1 / 9)
    probabilities[range(len(digits)), digits] = 0.9
    network = SimpleNamespace(logits=lambda images: probabilities[images[:, 0, 0, 0].mul(255).round().long()].log())
    metric.features = SimpleNamespace(name="stub", network=network)
    images = (torch.arange(len(digits)) / 255).view(-1, 1, 1, 1).expand(-1, 1, 32, 32)
    for batch in images.split(2):
        metric.update(batch * 2 - 1, batch)
    return metric.compute(SimpleNamespace(captions=captions, indices_of=range))


def test_accuracy_tells_of_every_digit_whether_it_was_asked_for() -> None:
    found = accuracy(["3", "1", "4", "1", "5"], [3, 1, 4, 7, 5])
    assert found["accuracy/stub"].tolist() == [1, 1, 1, 0, 1]
    assert found["confidence/stub"].tolist() == pytest.approx([0.9, 0.9, 0.9, 0.1 / 9, 0.9])


def test_accuracy_of_those_that_are_digits() -> None:
    found = accuracy(["no label", "1", "2"], [9, 1, 3])["accuracy/stub"]
    assert isinstance(found, Estimate) and found.value == pytest.approx(0.5)
    assert accuracy(["no label"], [9]) == {}


def test_accuracy_is_for_digits() -> None:
    metric = CATALOG.build("metric", {"name": "accuracy"})
    assert metric.applies(SimpleNamespace(id="mnist", shape=(1, 32, 32), feature_domain="mnist")) is None
    assert metric.applies(SimpleNamespace(id="google/ddpm-cat-256", shape=(3, 256, 256)))


def test_its_configs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a sweep is started from the command line"):
        diffexp.run(["experiment=guidance_weights"])
    small = ["steps=1", "num_samples=2", "snapshot_every=0", f"hydra.run.dir={tmp_path}"]
    diffexp.run(["experiment=guidance_weights", "guidance=falling", "hydra.mode=RUN", *small])
    config = json.loads((tmp_path / "run.json").read_text())["config"]
    assert set(config["metric"]) == {"cost", "fid", "accuracy"}
    assert config["guidance"] == {"name": "weighted", "shape": "inverse_linear"}
