"""Parallel in time: the samples of a step-by-step run, in fewer rounds."""

import logging
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffexp.catalog.discover import discover
from diffexp.components.grids.choice import Grid
from diffexp.components.models.base import Condition, Request, Runtime
from diffexp.components.sampler import build_sampler
from diffexp.errors import InputError
from diffexp.experiment.monitor import Monitor
from diffexp.plan.compile import Sampler
from diffexp.plan.noise import SampleNoise
from diffexp.plan.table import Plan

CATALOG = discover()
PARADIGMS, DENOISE = (CATALOG.build("loop", {"name": name}) for name in ("paradigms", "denoise"))


def mixture(schedule: str = "vp") -> Any:
    return CATALOG.build("model", {"name": "mixture", "schedule": schedule})(Runtime())


def sampler(name: str, model: Any, steps: int) -> Sampler:
    bound = CATALOG.build("scheduler", {"name": name})
    return build_sampler(bound.func, steps=steps, training=model.training, grid=Grid(), options=bound.keywords)


def draw(loop: partial, model: Any, chosen: Sampler, count: int = 8, **options: Any) -> tuple[Tensor, int]:
    """Samples and evaluations of each."""
    watch = Monitor(model, 10, 1, 0)
    condition = model.conditions(Request(), range(count))
    noise = SampleNoise(0, range(count), model.shape, dtype=torch.float64)
    batch: Any = SimpleNamespace(
        sampler=chosen,
        network=watch.network(model.predict, condition),
        network_at_once=watch.network_at_once(model.predict, condition),
        noise=noise.draw,
    )
    with torch.inference_mode():
        return loop(batch, **options), watch.batch_nfe


@pytest.mark.parametrize("schedule", ["vp", "edm", "flow"])
@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "gradient_estimation"])
@pytest.mark.parametrize("window", [0, 1, 4])
def test_without_tolerance_the_samples_are_those_of_denoise(schedule: str, scheduler: str, window: int) -> None:
    model = mixture(schedule)
    chosen = sampler(scheduler, model, 15)
    expected, _ = draw(DENOISE, model, chosen)
    found, evaluations = draw(PARADIGMS, model, chosen, tolerance=0.0, window=window)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert evaluations >= 15
    assert (evaluations == 15) == (window == 1)  # one step at a time is what denoise does


def test_a_tolerance_takes_fewer_rounds_than_steps(caplog: pytest.LogCaptureFixture) -> None:
    model = mixture()
    chosen = sampler("ddim", model, 50)
    with caplog.at_level(logging.INFO, logger="diffexp.paradigms"):
        found, _ = draw(PARADIGMS, model, chosen)
    (said,) = [record.getMessage() for record in caplog.records]
    rounds = int(said.split(" in ")[1].split()[0])
    assert rounds < 15
    torch.testing.assert_close(found, draw(DENOISE, model, chosen)[0], rtol=0, atol=0.02)


def test_every_level_is_asked_under_the_condition_of_its_sample() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def predict(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        seen.append((t, condition.positive["label"]))
        return u

    model = mixture()
    watch = Monitor(model, 10, 1, 0)
    condition = Condition({"label": torch.tensor([3, 4])}, None, ["3", "4"])
    levels = [model.schedule.at(t) for t in (900, 500, 10)]
    u = torch.arange(12, dtype=torch.float64).view(3, 2, 2)
    assert torch.equal(watch.network_at_once(predict, condition)(u, levels), u)
    ((times, labels),) = seen
    assert times.tolist() == [900, 900, 500, 500, 10, 10]
    assert labels.tolist() == [3, 4, 3, 4, 3, 4]
    assert watch.evaluations == 3


def test_it_needs_a_plan() -> None:
    def curved(denoise: Any, x: Tensor, levels: Any, noise: Any) -> Tensor:
        for here, there in levels.pairs():
            x0, eps = denoise.predict(x, here)
            x = there.alpha * torch.tanh(x0) + there.sigma * eps
        return x

    model = mixture()
    direct = build_sampler(curved, steps=3, training=model.training)
    assert not isinstance(direct, Plan)
    with pytest.raises(InputError, match="needs a plan, and curved runs directly"):
        draw(PARADIGMS, model, direct)
    with pytest.raises(InputError, match="at least 0"):
        draw(PARADIGMS, model, sampler("ddim", model, 3), window=-1)
