"""Tables whose numbers are free: exact for constant x0, levels in order, and the same as a plan and back."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

import diffexp
from diffexp.components.models.base import Condition
from diffexp.components.models.exact import exact_training
from diffexp.errors import InputError
from diffexp.learn.rollout import Network, rollout
from diffexp.learn.table import Table, table_of
from diffexp.plan.execute import execute
from diffexp.plan.levels import Level
from diffexp.plan.predictions import Clip, DynamicThreshold, Prediction
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

TRAININGS = {
    "vp": exact_training("vp", None),
    "v": exact_training("vp", "v_prediction"),
    "sample": exact_training("vp", "sample"),
    "edm": exact_training("edm", None),
    "flow": exact_training("flow", None),
    "clipped": Training(VPSchedule.from_betas(), clip=Clip()),
    "zero terminal SNR": Training(VPSchedule.from_betas(rescale_betas_zero_snr=True), Prediction.V),
}
numbers = st.floats(-3, 3)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    training = TRAININGS[draw(st.sampled_from(sorted(TRAININGS)))]
    n = draw(st.integers(1, 5))
    highest = training.schedule.at_sigma(training.schedule.sigma_range[1])
    first = highest.sigma / (highest.alpha + highest.sigma)
    ratios = draw(st.lists(st.floats(0.02, 0.98), min_size=n - 1, max_size=n - 1))
    shifts = draw(st.lists(st.floats(-0.5, 0.5), min_size=n, max_size=n))
    weights = np.array(draw(st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=n, max_size=n)))
    shares = draw(st.one_of(st.just([]), st.lists(st.floats(0, 0.9), min_size=n - 1, max_size=n - 1)))
    scales = draw(st.lists(st.floats(-0.3, 0.3), min_size=n - 1, max_size=n - 1))
    beyond = np.array(draw(st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=n, max_size=n)))
    remainders = beyond if training.clip else None
    return Table(training, first, 1.0, ratios, shifts, weights, shares, scales, remainders)


@settings(max_examples=60, deadline=None)
@given(table=tables(), constant=st.floats(-1, 1))
def test_any_table_is_exact_where_the_estimate_is_constant_and_its_levels_fall(table: Table, constant: float) -> None:
    plan, training = table.to_plan(), table.training_of_model

    def network(u: Tensor, level: Level) -> Tensor:
        p, q = training.prediction.clean(level)
        return (constant - p * u) / q

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=generator) * plan.start_std
    made = execute(plan, network, start, lambda: torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=generator))
    assert torch.allclose(made, torch.full_like(made, constant), atol=1e-7)
    ratios = [level.ratio for level in plan.levels]
    assert all(a > b > 0 for a, b in zip(ratios, ratios[1:]))
    low, high = training.schedule.timestep_range
    assert all(low <= level.timestep <= high for level in plan.levels)
    assert plan.nfe == table.nfe == len(plan.rows)
    assert Plan.from_json(plan.to_json()) == plan


@settings(max_examples=40, deadline=None)
@given(table=tables())
def test_a_table_is_the_same_as_a_plan_and_back(table: Table) -> None:
    plan = table.to_plan()
    scale = max(abs(c) for row in plan.rows for c in (1.0, *row.x, *row.m, *(c for past in row.d for c in past)))
    assert table_of(plan, table.training_of_model).to_plan().difference(plan) < 1e-8 * scale


@pytest.mark.parametrize("scheduler", ["dpmpp_2m", "euler", "dpmpp_2m_sde", "euler_ancestral"])
def test_multistep_schedulers_are_tables_as_they_are(scheduler: str) -> None:
    training = TRAININGS["clipped"]
    for grid in ("trailing", "karras", "ays"):
        plan = diffexp.compile(scheduler, steps=5, model=training, grid=grid)
        assert table_of(plan, training).to_plan().difference(plan) < 1e-9


def test_a_class_that_reads_unclipped_outputs_is_a_table_as_it_is() -> None:
    """DDIM of diffusers reads the output beside its clipped estimate; the difference is its float32."""
    training = TRAININGS["clipped"]
    plan = diffexp.compile("diffusers/ddim", steps=5, model=training, grid="trailing")
    assert any(row.d and row.m != (0.0,) for row in plan.rows)
    assert table_of(plan, training).to_plan().difference(plan) < 1e-6


@pytest.mark.parametrize("scheduler", ["ddim", "deis", "dpmpp_2m", "lms", "dpmpp_3m"])
def test_without_clipping_every_multistep_method_is_a_table(scheduler: str) -> None:
    training = TRAININGS["vp"]
    plan = diffexp.compile(scheduler, steps=5, model=training, grid="trailing")

    def network(u: Tensor, level: Level) -> Tensor:
        return torch.tanh(u + math.sin(level.timestep))

    start = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted, made = (
        execute(one, network, start * one.start_std, lambda: start)
        for one in (plan, table_of(plan, training).to_plan())
    )
    assert torch.allclose(made, wanted, atol=1e-6)


def test_a_rollout_computes_what_its_plan_does_and_every_number_has_its_gradient() -> None:
    training = TRAININGS["clipped"]
    table = table_of(diffexp.compile("dpmpp_2m", steps=4, model=training, grid="ays"), training)

    def predict(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return torch.tanh(0.9 * u + torch.sin(0.01 * t).view(-1, 1, 1, 1))

    network = Network(predict, Condition({}, None, [""] * 3))
    start = torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = {way: rollout(table, network, start, lambda: start, recompute=way) for way in (False, True)}
    plan = table.to_plan()
    direct = execute(
        plan,
        lambda u, level: network(u, torch.tensor(level.timestep, dtype=torch.float64)),
        start * plan.start_std,
        lambda: start,
    )
    assert torch.allclose(made[False], direct, atol=1e-9)
    gradients = []
    for x in made.values():
        table.zero_grad()
        x.square().sum().backward()
        gradients.append([p.grad.clone() for p in table.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b) for a, b in zip(*gradients)) and len(gradients[0]) == 5
    for parameter, gradient in zip(table.parameters(), gradients[0]):  # against differences
        place = (1,) if parameter.ndim == 1 else (2, 0)
        values = []
        for step in (1e-4, -1e-4):
            with torch.no_grad():
                parameter[place] += step
                values.append(rollout(table, network, start, lambda: start).square().sum().item())
                parameter[place] -= step
        assert gradient[place].item() == pytest.approx((values[0] - values[1]) / 2e-4, rel=2e-3, abs=1e-4)


def test_what_is_no_such_table_is_refused() -> None:
    with pytest.raises(InputError, match="evaluates a noise level twice, or goes back"):
        table_of(diffexp.compile("heun", steps=3), TRAININGS["vp"])
    training = Training(VPSchedule.from_betas(), clip=DynamicThreshold())
    with pytest.raises(InputError, match="thresholds its estimates"):
        table_of(diffexp.compile("ddim", steps=3), training)
