"""Parallel in time: the samples of a step-by-step run, in fewer rounds."""

import logging
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import diffexp
from diffexp import InputError, Level, Plan, Request, Runtime, SampleNoise, Sampler, build_sampler, discover

CATALOG = discover()
PARADIGMS, DENOISE = (CATALOG.build("loop", {"name": name}) for name in ("paradigms", "denoise"))


def mixture(schedule: str = "vp") -> Any:
    return CATALOG.build("model", {"name": "mixture", "schedule": schedule})(Runtime())


def sampler(name: str, model: Any, steps: int) -> Plan:
    return diffexp.compile(name, steps=steps, model=model)


def draw(loop: partial, model: Any, chosen: Sampler, count: int = 8, **options: Any) -> tuple[Tensor, int]:
    """Samples, and the number of evaluations of each."""
    condition = model.conditions(Request(), range(count))
    noise = SampleNoise(0, range(count), model.shape, dtype=torch.float64)
    evaluations = 0

    def network(u: Tensor, level: Level) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return model.predict(u, torch.full((len(u),), level.timestep, dtype=u.dtype), condition)

    def network_at_once(u: Tensor, levels: Sequence[Level]) -> Tensor:
        return torch.stack([network(one, level) for one, level in zip(u, levels, strict=True)])

    batch: Any = SimpleNamespace(sampler=chosen, network=network, network_at_once=network_at_once, noise=noise.draw)
    with torch.inference_mode():
        return loop(batch, **options), evaluations


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
