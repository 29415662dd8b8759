"""Variance-exploding and flow schedules: their levels, and what networks on them are given and say."""

import math
from typing import Any

import pytest
import torch
from diffusers import EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given, strategies as st

import diffexp
from diffexp.components.grids import flow, karras, linspace, trailing
from diffexp.components.models.base import Request, Runtime
from diffexp.components.models.gaussian import gaussian
from diffexp.components.sampler import bind
from diffexp.components.schedulers.euler import euler
from diffexp.errors import InputError
from diffexp.plan.compile import compile_method
from diffexp.plan.execute import execute
from diffexp.plan.levels import CLEAN, Level, Schedule
from diffexp.plan.method import combine
from diffexp.plan.predictions import Preconditioned, Prediction
from diffexp.plan.schedules import FlowSchedule, VESchedule, VPSchedule
from diffexp.plan.training import Training

SCHEDULES = [VPSchedule.from_betas(), VESchedule(), VESchedule(sigma_data=0.5), FlowSchedule(), FlowSchedule(shift=3.0)]
RUNTIME = Runtime(torch.device("cpu"), None, False)


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(place=st.floats(0, 1))
def test_every_coordinate_names_the_same_level(schedule: Schedule, place: float) -> None:
    low, high = schedule.sigma_range
    level = schedule.at_sigma(low * (high / low) ** place)
    for again in (schedule.at_sigma(schedule.sigma_of(level)), schedule.at_ratio(level.ratio)):
        assert again.alpha == pytest.approx(level.alpha, rel=1e-9, abs=1e-15)
        assert again.sigma == pytest.approx(level.sigma, rel=1e-9)
        assert again.timestep == pytest.approx(level.timestep, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_indices_run_over_the_training_range(schedule: Schedule) -> None:
    indices = range(0, schedule.num_train_timesteps, 37)
    ratios = [schedule.at_index(i).ratio for i in indices]
    assert ratios == sorted(ratios)
    assert schedule.sigma_of(schedule.at_index(schedule.num_train_timesteps - 1)) == pytest.approx(
        schedule.sigma_range[1]
    )
    with pytest.raises(InputError, match="outside the training range"):
        schedule.at(schedule.timestep_range[1] + 1)


def test_flow_levels() -> None:
    schedule = FlowSchedule(shift=3.0)
    assert schedule.at(250.0) == Level(250.0, 0.75, 0.25)
    assert schedule.at_ratio(math.inf) == Level(1000.0, 0.0, 1.0)
    assert schedule.at_index(499).sigma == pytest.approx(0.75)  # 3 * 0.5 / (1 + 2 * 0.5)
    assert schedule.at_sigma(0.0) == CLEAN


def test_no_flow_level_has_more_noise_than_there_is() -> None:
    schedule = FlowSchedule(shift=0.325902361700851)  # for which the formula gives 1 + 2e-16 at 1
    assert schedule.shifted(1.0) == 1.0
    assert schedule.at_index(999) == schedule.at(1000.0) == Level(1000.0, 0.0, 1.0)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 28])
def test_the_flow_grid_is_that_of_diffusers(shift: float, steps: int) -> None:
    theirs: Any = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(steps)
    ours = flow(FlowSchedule(shift=shift), steps)
    assert [level.sigma for level in ours] == pytest.approx(theirs.sigmas.tolist(), rel=1e-6)
    assert [level.timestep for level in ours[:-1]] == pytest.approx(theirs.timesteps.tolist(), rel=1e-6)


def test_the_edm_grid_is_that_of_diffusers() -> None:
    theirs: Any = EDMEulerScheduler()
    theirs.set_timesteps(18)
    ours = karras(VESchedule(sigma_data=0.5), 18)
    assert [level.sigma for level in ours] == pytest.approx(theirs.sigmas.tolist(), rel=1e-5)
    assert [level.timestep for level in ours[:-1]] == pytest.approx(theirs.timesteps.tolist(), abs=1e-6)


def test_a_flow_grid_is_for_flow_models() -> None:
    with pytest.raises(InputError, match="needs a flow-matching model"):
        flow(VPSchedule.from_betas(), 5)


@given(ratio=st.floats(1e-3, 100), alpha=st.floats(0.1, 1), sign=st.sampled_from([1.0, -1.0]))
def test_what_a_preconditioned_network_says_reads_back(ratio: float, alpha: float, sign: float) -> None:
    target, level = Preconditioned(0.7, sign), Level(0.0, alpha, alpha * ratio)
    x0, eps = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = level.alpha * x0 + level.sigma * eps
    output = target.output(level, x0, eps)
    torch.testing.assert_close(combine(target.clean(level), x, output), x0)
    torch.testing.assert_close(combine(target.noise(level), x, output), eps)


@pytest.mark.parametrize("target", list(Prediction))
@pytest.mark.parametrize("level", [Level(0.0, 1.0, 3.0), Level(0.0, 0.4, 0.6), Level(0.0, 0.6, 0.8)])
def test_what_a_network_says_reads_back_at_any_level(target: Prediction, level: Level) -> None:
    x0, eps = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = level.alpha * x0 + level.sigma * eps
    output = target.output(level, x0, eps)
    torch.testing.assert_close(combine(target.clean(level), x, output), x0)
    torch.testing.assert_close(combine(target.noise(level), x, output), eps)


def test_an_edm_network_is_given_unit_variance() -> None:
    schedule = VESchedule(sigma_data=0.5)
    training = Training(schedule, Preconditioned(0.5))
    plan = compile_method(bind(euler, steps=5, training=training, grid=None))
    for row in plan.rows:
        sigma = row.level.ratio
        assert row.scale == pytest.approx(1 / math.hypot(sigma, 0.5))
        assert row.level.alpha == pytest.approx(row.scale)


@pytest.mark.parametrize("kind", ["vp", "ve", "edm", "flow"])
@pytest.mark.parametrize("grid", [linspace, trailing, karras])
def test_euler_finds_the_distribution_on_every_kind_of_schedule(kind: Any, grid: Any) -> None:
    model = gaussian(RUNTIME, schedule=kind, mean=[0.5, -1.0], variances=[1.0, 0.04], angle=0.0)
    plan = diffexp.compile("euler", steps=200, model=model, grid=grid)
    condition = model.conditions(Request(), range(4000))

    def network(u: torch.Tensor, level: Level) -> torch.Tensor:
        return model.predict(u, torch.full((len(u),), level.timestep, dtype=torch.float64), condition)

    start = torch.randn(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * plan.start_std
    out = execute(plan, network, start, lambda: start)
    assert out.mean(0).tolist() == pytest.approx([0.5, -1.0], abs=0.06)
    assert out.std(0).tolist() == pytest.approx([1.0, 0.2], rel=0.08)
