"""PNDM, iPNDM and LCM against diffusers; where they differ, the exact solution says who is right."""

import math
from dataclasses import replace
from typing import Any

import diffusers
import pytest
from hypothesis import given, settings, strategies as st
from torch import Tensor

import diffexp
from diffexp.components import grids
from diffexp.components.schedulers.ipndm import ipndm
from diffexp.components.schedulers.pndm import pndm
from diffexp.errors import InputError
from diffexp.plan.compile import compile_method
from diffexp.plan.difference import unrolled_difference
from diffexp.plan.execute import execute
from diffexp.plan.levels import Level, Levels
from diffexp.plan.method import FunctionMethod
from diffexp.plan.predictions import Prediction
from diffexp.plan.schedules import FlowSchedule, VESchedule, VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training
from tests.exact_flow import distance, error, even_levels, order_of, posterior_mean
from tests.parity.common import BETAS, EXACT, PREDICTIONS, SINGLE, difference, training_of

PNDM: Any = diffusers.PNDMScheduler
IPNDM: Any = diffusers.IPNDMScheduler
LCM: Any = diffusers.LCMScheduler
STARTS = {"runge_kutta": False, "improved_euler": True}
"""Ours, and diffusers' ``skip_prk_steps``."""


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize(("spacing", "offset"), [("leading", 0), ("leading", 1), ("trailing", 0)])
def test_pndm_has_the_tables_of_diffusers(start: str, betas: str, spacing: str, offset: int) -> None:
    for steps, to_one in ((5, False), (10, True), (25, False)):
        theirs = PNDM(
            **BETAS[betas],
            skip_prk_steps=STARTS[start],
            timestep_spacing=spacing,
            steps_offset=offset,
            set_alpha_to_one=to_one,
        )
        assert difference("pndm", theirs, steps, spacing, start=start) < EXACT


@settings(max_examples=12)
@given(
    steps=st.integers(1, 60), end=st.floats(0.005, 0.05), start=st.sampled_from(sorted(STARTS)), to_one=st.booleans()
)
def test_pndm_on_any_number_of_steps(steps: int, end: float, start: str, to_one: bool) -> None:
    theirs = PNDM(beta_end=end, skip_prk_steps=STARTS[start], set_alpha_to_one=to_one)
    if start == "runge_kutta" and (steps < 4 or 1000 // steps % 2):
        return  # see below
    assert difference("pndm", theirs, steps, "leading", start=start) < EXACT


def test_pndm_of_diffusers_needs_four_steps() -> None:
    """With its Runge-Kutta start; ours ends in a plain step where the clean end leaves no other."""
    with pytest.raises(InputError, match="could not be broadcast"):
        diffexp.compile(PNDM(), steps=3)
    prk: dict[str, Any] = {"grid": "trailing", "start": "runge_kutta"}
    assert [diffexp.compile("pndm", steps=steps, **prk).nfe for steps in (1, 2, 3, 4, 5)] == [1, 5, 9, 13, 14]
    assert [diffexp.compile("pndm", steps=steps, grid="trailing").nfe for steps in (1, 2, 3, 50)] == [1, 3, 4, 51]


def alpha_bar(plan: Plan, row: int) -> float:
    """The squared signal of the sample after a row, by what the row keeps of the last one (eq. 9)."""
    here = plan.rows[row].level
    return (here.alpha * plan.rows[row].x[0]) ** 2


def test_half_a_step_of_diffusers_misses_its_timestep() -> None:
    """Where a step has an odd number of timesteps, x goes down by the rounded-down half, the timestep by the other."""
    theirs = PNDM()
    training = training_of(theirs)
    bars = [training.schedule.at(t).alpha ** 2 for t in range(1000)]
    for plan, lands in (
        (diffexp.compile("pndm", steps=8, model=training, start="runge_kutta"), 812),
        (diffexp.compile(theirs, steps=8, model=training), 813),
    ):
        assert [row.level.timestep for row in plan.rows[:3]] == [875, 812, 812]
        assert alpha_bar(plan, 0) == pytest.approx(bars[lands], rel=1e-9)


def v_network(training: Training) -> Any:
    """The exact v prediction, which takes its input for what the timestep says."""

    def network(u: Tensor, told: Level) -> Tensor:
        level = training.schedule.at(told.timestep)
        x0 = posterior_mean(u, level)
        return Prediction.V.output(level, x0, (u - level.alpha * x0) / level.sigma)

    return network


@pytest.mark.parametrize("start", STARTS)
def test_pndm_of_diffusers_loses_its_order_with_v_prediction(start: str) -> None:
    """It takes the mean of past v as if they belonged to this step's sample and timestep. Ours makes noise of each."""
    theirs = PNDM(prediction_type="v_prediction", skip_prk_steps=STARTS[start])
    training = training_of(theirs)

    def errors(scheduler: Any, **options: Any) -> list[float]:
        found = []
        for steps in (50, 250):
            plan = diffexp.compile(scheduler, steps=steps, model=training, **options)
            ends = training.schedule.at(plan.rows[0].level.timestep), training.schedule.at(0)
            levels = Levels(ends, training.schedule, 1.0)
            found.append(distance(lambda x, plan=plan: execute(plan, v_network(training), x, lambda: x), levels))
        return found

    first, last = errors(theirs)
    assert 0.9 < order_of(first, last, 5) < 1.1
    ours = errors("pndm", start=start)
    assert ours[0] < first / 50 and ours[1] < last / 50


SCHEDULES = (VPSchedule.from_betas(), VESchedule(), FlowSchedule())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize(
    ("solver", "options", "order"),
    [
        (pndm, {}, 2),
        (pndm, {"start": "improved_euler"}, 2),
        (ipndm, {}, 2),
        (ipndm, {"order": 2}, 2),
        (ipndm, {"order": 1}, 1),
    ],
)
def test_orders_on_every_kind_of_schedule(solver: Any, options: dict[str, Any], order: int, schedule: Any) -> None:
    few, many = (error(solver, even_levels(schedule, steps), **options) for steps in (80, 160))
    assert order_of(few, many, 2) == pytest.approx(order, abs=0.2)


def test_pndm_ends_where_the_models_chain_ends() -> None:
    """At its first training level: on the leading grid the last evaluation of diffusers' default then does nothing."""
    training = replace(training_of(PNDM()), prediction=Prediction.EPSILON)
    last = diffexp.compile("pndm", steps=10, model=training).rows[-1]
    assert last.x == pytest.approx((1.0,)) and max(map(abs, last.m)) < 1e-15
    to_one = diffexp.compile("pndm", steps=10, model=training_of(PNDM(set_alpha_to_one=True))).rows[-1]
    assert max(map(abs, to_one.m)) > 1e-3


def test_ipndm_has_the_tables_of_diffusers() -> None:
    """IPNDMScheduler has a schedule of its own, sigma = sin(pi u / 2)^2, and the v prediction of the network it was
    written for. ``trained_betas`` sets its sigmas: on those of a grid it is ours, apart from the time it tells."""
    training = Training(VPSchedule.from_betas(), Prediction.V)
    for steps in (1, 2, 3, 4, 9):
        ours = diffexp.compile("ipndm", steps=steps, model=training, grid="trailing")
        sigmas = [row.level.sigma for row in ours.rows]
        theirs = diffexp.compile(IPNDM(trained_betas=[*sigmas, 0.0]), steps=steps, model=training)
        rows = tuple(replace(row, level=own.level) for row, own in zip(theirs.rows, ours.rows, strict=True))
        assert unrolled_difference(ours, replace(theirs, rows=rows)) < 1e-4


def test_ipndm_of_diffusers_begins_blind() -> None:
    """Its schedule starts without signal, where it takes x0 for 0; the network's v says what x0 is there."""
    theirs = diffexp.compile(IPNDM(), steps=5)
    assert theirs.rows[0].m[0] == 0
    u = [1 - k / 5 for k in range(6)]
    sigmas = [math.sin(math.pi * place / 2) ** 2 for place in u]
    points = tuple(Level(place, math.sqrt(1 - sigma**2), sigma) for place, sigma in zip(u, sigmas))
    schedule = VPSchedule.from_betas(rescale_betas_zero_snr=True)
    levels = Levels(points, schedule, 1.0)
    ours = compile_method(FunctionMethod(ipndm, levels, Training(schedule, Prediction.V), {}, "ipndm"))
    assert ours.rows[0].x[0] == pytest.approx(theirs.rows[0].x[0], rel=1e-6)
    assert ours.rows[0].m[0] == pytest.approx(-points[1].alpha, rel=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "cosine", "trained"])
def test_lcm_has_the_tables_of_diffusers(prediction: str, betas: str) -> None:
    """On the timesteps of distillation, which both visit unless told otherwise."""
    for steps, clip in ((1, False), (2, True), (4, False), (7, True), (50, False)):
        theirs = LCM(**BETAS[betas], prediction_type=prediction, clip_sample=clip, clip_sample_range=0.8)
        training = training_of(theirs)
        ours = diffexp.compile("lcm", steps=steps, model=training)
        assert ours.difference(diffexp.compile(theirs, steps=steps, model=training)) < SINGLE
        assert ours.draws == steps - 1


@settings(max_examples=10)
@given(steps=st.integers(1, 20), original=st.integers(20, 200), scaling=st.floats(0.1, 20))
def test_lcm_with_any_options(steps: int, original: int, scaling: float) -> None:
    theirs = LCM(original_inference_steps=original, timestep_scaling=scaling)
    training = training_of(theirs)
    expected = diffexp.compile(theirs, steps=steps, model=training)
    timesteps = [row.level.timestep for row in expected.rows]
    given_one_by_one = diffexp.compile(
        "lcm", steps=steps, model=training, timesteps=timesteps, timestep_scaling=scaling
    )
    assert given_one_by_one.difference(expected) < SINGLE
    grid: Any = lambda schedule, steps: grids.lcm(schedule, steps, original_steps=original)  # noqa: E731
    assert diffexp.compile("lcm", steps=steps, model=training, grid=grid, timestep_scaling=scaling) == given_one_by_one


def test_lcm_is_a_consistency_function() -> None:
    """f(x, 0) = x."""
    (row,) = diffexp.compile("lcm", steps=1, timesteps=[0]).rows
    assert (row.x, row.m) == ((1.0,), (0.0,))


def test_lcm_on_flow_levels_is_flow_match_lcm() -> None:
    training = Training(FlowSchedule(), Prediction.FLOW)
    sigmas = [1.0, 0.75, 0.5, 0.2]
    theirs = diffexp.compile("diffusers/flow_match_lcm", steps=4, model=training, sigmas=sigmas)
    assert diffexp.compile("lcm", steps=4, model=training, sigmas=sigmas).difference(theirs) < SINGLE


def test_a_grid_that_is_asked_for_goes_before_the_schedulers_own() -> None:
    levels = {grid: diffexp.compile("lcm", steps=4, grid=grid).rows for grid in ("auto", "lcm", "trailing")}
    times = {grid: [row.level.timestep for row in rows] for grid, rows in levels.items()}
    assert times == {"auto": [999, 759, 499, 259], "lcm": [999, 759, 499, 259], "trailing": [999, 749, 499, 249]}
    with pytest.raises(InputError, match="original_steps=50 must be between steps=51"):
        diffexp.compile("lcm", steps=51)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("training", [Training(SCHEDULES[0], Prediction.V), Training(FlowSchedule(), Prediction.FLOW)])
def test_pndm_compiles_though_it_looks_far_back(start: str, training: Training) -> None:
    for steps in (1, 2, 3, 4, 5, 6, 20):
        plan = diffexp.compile("pndm", steps=steps, model=training, start=start, grid="trailing")
        assert all(row.depth <= 6 for row in plan.rows[16:])
        assert all(math.isfinite(c) for row in plan.rows for c in (*row.x, *row.m))
