"""Exact output distributions against sampling and against the exact solution."""

import math
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st

import diffexp
from diffexp.catalog.discover import discover
from diffexp.certify.defects import coupled_distance, point_defects
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.wasserstein import Wasserstein
from diffexp.components.models.base import Request, Runtime
from diffexp.components.models.gaussian import gaussian
from diffexp.components.sampler import bind
from diffexp.errors import InputError
from diffexp.plan.compile import run_directly
from diffexp.plan.difference import unrolled_difference
from diffexp.plan.execute import execute
from diffexp.plan.levels import CLEAN, Level
from diffexp.plan.moments import POINT, Gaussian, gaussian_output, respond, started
from diffexp.plan.predictions import Clip, Prediction
from diffexp.plan.row import Clamp
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

MEAN, VARIANCES = (
    torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64),
    torch.tensor([1.0, 0.3, 0.01], dtype=torch.float64),
)

TRAINING = Training(VPSchedule.from_betas())


@pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "euler", "gradient_estimation"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "flow_prediction"])
def test_moments_are_those_of_many_samples(scheduler: str, prediction: Any) -> None:
    model = gaussian(Runtime(), mean=[0.5, -1.0], variances=[1.0, 0.05], prediction=prediction)
    plan = diffexp.compile(scheduler, steps=6, model=model)
    condition = model.conditions(Request(), range(4000))
    generator = torch.Generator().manual_seed(0)

    def noise() -> torch.Tensor:
        return torch.randn(4000, 2, generator=generator, dtype=torch.float64)

    def network(u: torch.Tensor, level: Level) -> torch.Tensor:
        return model.predict(u, torch.full((4000,), level.timestep), condition)

    x = execute(plan, network, noise() * plan.start_std, noise) @ model.basis
    mean, variances = gaussian_output(plan, model.mean @ model.basis, model.variances, Prediction(prediction))
    assert torch.allclose(x.mean(0), mean, atol=0.06)
    assert torch.allclose(x.var(0), variances, rtol=0.1, atol=1e-6)


@given(st.sampled_from(["ddpm", "ddim", "euler"]))
def test_many_steps_give_the_data(scheduler: str) -> None:
    mean, variances = gaussian_output(diffexp.compile(scheduler, steps=1000), MEAN, VARIANCES)
    assert torch.allclose(mean, MEAN, atol=0.02)
    assert torch.allclose(variances, VARIANCES, rtol=0.1)


def test_euler_is_of_first_order() -> None:
    """Halving the steps doubles the error of the standard deviation on a smooth spectrum."""
    ones, zero = torch.tensor([0.25], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)

    def error(steps: int) -> float:
        plan = diffexp.compile("euler", steps=steps, grid="exponential")
        return abs(gaussian_output(plan, zero, ones)[1].sqrt().item() - reference)

    reference = gaussian_output(diffexp.compile("euler", steps=999, grid="exponential"), zero, ones)[1].sqrt().item()
    assert error(40) / error(80) == pytest.approx(2, abs=0.25)


def test_clipped_plans_are_not_gaussian() -> None:
    plan = diffexp.compile("ddim", steps=3, model=Training(VPSchedule.from_betas(), clip=Clip()))
    with pytest.raises(InputError, match="clips"):
        gaussian_output(plan, MEAN, VARIANCES)


def test_code_answers_as_its_table_does() -> None:
    """Also where a draw is used twice, which is no table."""
    data = Gaussian(MEAN, VARIANCES)

    def twice(denoise, x, levels, noise):
        z = noise()
        for here, there in levels.pairs():
            x = there.alpha * denoise(x, here) + 0.1 * there.sigma * z
        return x

    for scheduler in ("ddpm", "dpmpp_2m_sde"):
        plan = diffexp.compile(scheduler, steps=7)
        method = bind(discover().get("scheduler", scheduler).load(), steps=7, training=TRAINING)
        made = respond(partial(run_directly, method), data, start=started(plan.start_std)).output.moments
        mean, variances = gaussian_output(plan, MEAN, VARIANCES)
        assert torch.allclose(made.mean, mean, atol=1e-12) and torch.allclose(made.variances, variances, atol=1e-12)
    run = partial(run_directly, bind(twice, steps=4, training=TRAINING))
    seen = respond(run, data, start=started(1.0)).seen
    assert [level.timestep for level, _ in seen] == [750, 500, 250, 0]
    # At the second evaluation x = alpha' x0 + 0.1 sigma' z, of which x0 has the same z in it.
    assert bool((seen[1][1].columns[:, 1] != 0).all())


def test_wasserstein_distance() -> None:
    one, other = Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.tensor([3.0, 0.0]), torch.tensor([1.0, 25.0]))
    assert one.wasserstein(other) == pytest.approx(5.0)  # sqrt(3^2 + (1 - 5)^2)
    assert one.wasserstein(one) == 0.0


@pytest.mark.parametrize("scheduler", ["ddpm", "heun", "dpmpp_2m", "lms", "dpm2_ancestral"])
@given(data=st.data())
def test_a_changed_coefficient_is_a_defect_of_the_next_sample(scheduler: str, data: st.DataObject) -> None:
    """Every scheduler is exact where the data is a point, until one of its numbers is changed."""
    plan = diffexp.compile(scheduler, steps=8)
    assert max(defect.size for defect in defects_of(plan)) < 1e-9
    index = data.draw(st.integers(0, plan.nfe - 2))
    row = plan.rows[index]
    changed = replace(row, x=(row.x[0] * 1.01, *row.x[1:]))
    found = defects_of(replace(plan, rows=(*plan.rows[:index], changed, *plan.rows[index + 1 :])))
    assert all(defect.size < 1e-9 for defect in found[: index + 1])
    assert found[index + 1].size > 1e-5


def defects_of(plan: Plan) -> list[Any]:
    level = plan.rows[0].level
    start = Gaussian(level.alpha * POINT.mean, level.alpha**2 * POINT.variances + level.sigma**2)
    return point_defects(respond(partial(execute, plan), POINT, start=start), CLEAN)


def test_unrolled_tables() -> None:
    clipped = Training(VPSchedule.from_betas(), clip=Clip())
    ddim, euler, ddpm = (diffexp.compile(name, steps=6) for name in ("ddim", "euler", "ddpm"))
    assert unrolled_difference(ddim, euler) < 1e-12
    assert unrolled_difference(ddim, ddpm) > 0.1
    assert unrolled_difference(ddim, diffexp.compile("ddim", steps=7)) == math.inf
    assert unrolled_difference(ddim, diffexp.compile("ddim", steps=6, model=clipped)) > 0.1
    heun = diffexp.compile("heun", steps=6, model=clipped)
    assert unrolled_difference(heun, replace(heun, name="again")) == 0.0


def test_two_tables_of_one_method_with_a_memory_are_the_same_unrolled() -> None:
    """x_1 is a combination of x_0 and m_0, so that x_2 can be written over x_1 and m_1 or over x_0, m_0 and m_1."""
    plan = diffexp.compile("euler", steps=3)
    first, second = plan.rows[0], plan.rows[1]
    longer = replace(second, x=(0.0, second.x[0] * first.x[0]), m=(second.m[0], second.x[0] * first.m[0]))
    other = replace(plan, rows=(first, longer, plan.rows[2]))
    assert plan.difference(other) > 0.1
    assert unrolled_difference(plan, other) < 1e-14


def test_coupled_distance_is_that_of_coupled_samples() -> None:
    data = Gaussian(torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64))
    plans = {steps: diffexp.compile("euler_ancestral", steps=steps, grid="exponential") for steps in (5, 9)}
    made = {n: respond(partial(execute, plan), data, start=started(plan.start_std)) for n, plan in plans.items()}
    on_point = respond(partial(execute, plans[9]), POINT, start=started(plans[9].start_std))
    exact = coupled_distance(made[5], made[9], on_point)

    start, fine = torch.randn(1, 20000, dtype=torch.float64), torch.randn(8, 20000, dtype=torch.float64)
    coarse = []
    for k in range(4):
        weights = on_point.seen[2 * k + 2][1].columns[0, [1 + 2 * k, 2 + 2 * k]]
        coarse.append(weights / weights.norm() @ fine[2 * k : 2 * k + 2])
    ends = []
    for steps, draws in ((5, torch.stack(coarse)), (9, fine)):
        columns = made[steps].seen[-1][1].columns[0]
        ends.append(columns[0] * start[0] + columns[1 : 1 + len(draws)] @ draws + columns[-1])
    assert (ends[0] - ends[1]).square().mean().sqrt().item() == pytest.approx(exact, rel=0.03)


def test_limits_without_an_end_and_coefficients_that_are_no_numbers_are_differences():
    row = diffexp.compile("ddim", steps=2).rows[0]
    half, whole = (replace(row, clamps=(Clamp(1.0, 0.0, low, 1.0),), d=((0.5,),)) for low in (-math.inf, -1.0))
    broken = replace(row, x=(math.nan,))
    for one, other in combinations([Plan((found,), 1.0) for found in (row, half, whole, broken)], 2):
        assert one.difference(other) > 0 and unrolled_difference(one, other) > 0
    assert Plan((half,), 1.0).difference(Plan((half,), 1.0)) == 0
    assert Plan((half,), 1.0).difference(Plan((whole,), 1.0)) == math.inf


def half_a_step_off(denoise, x, levels, noise, *, halfway: bool = True):
    """Euler's method, whose network gets the timestep in the middle of the step."""
    for here, there in levels.pairs():
        timestep = (here.timestep + there.timestep) / 2 if halfway else here.timestep
        x0 = denoise(x, replace(here, timestep=timestep))
        x = there.alpha * x0 + there.sigma / here.sigma * (x - here.alpha * x0)
    return x


def test_the_exact_output_answers_for_the_timesteps_that_the_network_gets() -> None:
    """Mean and deviation are those of samples of the model, which knows the timestep alone."""
    model = gaussian(Runtime(), mean=[0.5, -1.0], variances=[1.0, 0.05])
    condition, data = model.conditions(Request(), range(20_000)), (model.mean @ model.basis, model.variances)
    exact: dict[bool, Any] = {}
    for halfway in (False, True):
        plan = diffexp.compile(half_a_step_off, steps=10, model=model, halfway=halfway)
        generator = torch.Generator().manual_seed(0)

        def network(u: torch.Tensor, level: Level) -> torch.Tensor:
            return model.predict(u, torch.full((len(u),), level.timestep), condition)

        start = torch.randn(20_000, 2, generator=generator, dtype=torch.float64) * plan.start_std
        x = execute(plan, network, start, start.clone) @ model.basis
        mean, variances = gaussian_output(plan, *data, Prediction.EPSILON, model.schedule)
        assert torch.allclose(x.mean(0), mean, atol=0.03) and torch.allclose(x.var(0), variances, rtol=0.05)
        facts = RunFacts(10, 0, 0.0, 0.0, None, None, plan, model)
        exact[halfway] = Wasserstein().compute(facts)["wasserstein2/exact"]
        assert exact[halfway] == pytest.approx(Gaussian(mean, variances).wasserstein(Gaussian(*data)))
    assert abs(exact[True] - exact[False]) > 0.03
