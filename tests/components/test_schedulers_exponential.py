"""Solvers that step in log SNR: their errors on data whose exact solution is known, their limits, their relatives."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from diffexp.components import grids
from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import bind, build_sampler
from diffexp.components.schedulers.deis import deis
from diffexp.components.schedulers.dpmpp_2m import dpmpp_2m
from diffexp.components.schedulers.dpmpp_2m_sde import dpmpp_2m_sde
from diffexp.components.schedulers.dpmpp_3m import dpmpp_3m
from diffexp.components.schedulers.dpmpp_sde import dpmpp_sde
from diffexp.components.schedulers.euler import euler
from diffexp.components.schedulers.unipc import unipc
from diffexp.errors import InputError
from diffexp.plan.compile import compile_method
from diffexp.plan.levels import Levels, Schedule
from diffexp.plan.method import Denoiser
from diffexp.plan.moments import gaussian_output
from diffexp.plan.predictions import Prediction
from diffexp.plan.schedules import FlowSchedule, VESchedule, VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training
from tests.exact_flow import error, even_levels, order_of, posterior_mean
from tests.parity.common import unrolled_difference

SCHEDULES: dict[str, Schedule] = {
    "vp": VPSchedule.from_betas(),
    "zero_snr": VPSchedule.from_betas(rescale_betas_zero_snr=True),
    "ve": VESchedule(),
    "flow": FlowSchedule(),
}
ODE_METHODS: list[tuple[Any, dict[str, Any]]] = [
    (dpmpp_2m, {}),
    (dpmpp_2m, {"solver_type": "heun"}),
    (dpmpp_2m_sde, {"eta": 0.0}),
    (dpmpp_3m, {}),
    (dpmpp_sde, {"eta": 0.0}),
    (dpmpp_sde, {"eta": 0.0, "r": 0.8}),
    *((deis, {"order": order}) for order in (1, 2, 3)),
    *((unipc, {"order": order, "variant": "bh1"}) for order in (1, 2, 3)),
    *((unipc, {"order": order}) for order in (1, 2, 3, 4)),
    (unipc, {"order": 2, "predict": "noise"}),
    (unipc, {"order": 3, "predict": "noise", "variant": "bh1"}),
]
SDE_METHODS: list[tuple[Any, dict[str, Any]]] = [
    (dpmpp_2m_sde, {}),
    (dpmpp_2m_sde, {"solver_type": "heun", "eta": 0.4}),
    (dpmpp_3m, {"eta": 1.0}),
    (dpmpp_sde, {}),
    (dpmpp_sde, {"eta": 0.6, "r": 0.75}),
    (dpmpp_sde, {"r": 1.0}),
]


# Orders of convergence, on two modes


ORDERS: list[tuple[Any, dict[str, Any], float]] = [
    (euler, {}, 1),
    (dpmpp_2m, {}, 2),
    (dpmpp_2m, {"solver_type": "heun"}, 2),
    (dpmpp_3m, {}, 3),
    (dpmpp_sde, {"eta": 0.0}, 2),
    (dpmpp_sde, {"eta": 0.0, "r": 0.8}, 2),
    (deis, {"order": 1}, 1),
    (deis, {"order": 2}, 2),
    (deis, {"order": 3}, 3),
    (unipc, {"order": 1}, 2),
    (unipc, {}, 3),
    (unipc, {"variant": "bh1"}, 3),
    (unipc, {"predict": "noise"}, 3),
    (unipc, {"order": 3, "lower_order_final": False}, 4),
    (unipc, {"order": 3, "predict": "noise", "lower_order_final": False}, 4),
]


@pytest.mark.parametrize(("function", "options", "order"), ORDERS)
def test_order_of_convergence(function: Any, options: dict[str, Any], order: float) -> None:
    few, many = (error(function, even_levels(SCHEDULES["vp"], steps), **options) for steps in (40, 320))
    assert order_of(few, many, 8) == pytest.approx(order, abs=0.3)


def test_higher_orders_are_better_at_usual_step_counts() -> None:
    levels = even_levels(SCHEDULES["vp"], 40)
    errors = [error(function, levels) for function in (euler, dpmpp_2m, dpmpp_3m)] + [error(unipc, levels, order=3)]
    assert all(after < before / 2 for before, after in pairwise(errors))


# On Gaussian data every output is Gaussian, with a variance that the table tells exactly


def variance_error(function: Any, steps: int, variance: float, **options: Any) -> float:
    """Relative error of the variance of the output on N(0, variance)."""
    levels = even_levels(SCHEDULES["vp"], steps)
    start_std = math.sqrt(levels[0].alpha ** 2 * variance + levels[0].sigma ** 2)
    plan = replace(plan_of(function, levels, **options), start_std=start_std)
    found = gaussian_output(plan, torch.zeros(1), torch.tensor([variance]), Prediction.SAMPLE)[1]
    return abs(float(found[0]) / (levels[-1].alpha ** 2 * variance + levels[-1].sigma ** 2) - 1)


def plan_of(function: Any, levels: Levels, prediction: Prediction = Prediction.SAMPLE, **options: Any) -> Plan:
    training = Training(levels.schedule, prediction)
    grid = Grid("given", lambda schedule, steps: levels)
    plan = compile_method(bind(function, steps=levels.steps, training=training, grid=grid, options=options))
    return replace(plan, start_std=1.0)


@pytest.mark.parametrize("variance", [0.04, 1.0])
@pytest.mark.parametrize(("function", "options"), SDE_METHODS)
def test_weak_order_2_of_the_stochastic_ones(function: Any, options: dict[str, Any], variance: float) -> None:
    few, many = (variance_error(function, steps, variance, **options) for steps in (40, 80))
    assert order_of(few, many, 2) > 1.8 and many < 0.02


# Where the noise of DPM-Solver++ SDE's middle stage comes from


def in_k_diffusion(correlation: Callable[[float, float, float], float]) -> Any:
    """DPM-Solver++ SDE in sigma / alpha, with a correlation between the noise of the middle stage and of the step."""

    def ancestral(x: Tensor, x0: Tensor, here: float, there: float, z: Tensor) -> Tensor:
        down = there**2 / here
        return down / here * x + (1 - down / here) * x0 + math.sqrt(there**2 - down**2) * z

    def sampler(model, x, sigmas, noise_sampler):
        for k, (here, there) in enumerate(pairwise(sigmas.tolist())):
            middle = math.sqrt(here * there)
            x0, z = model(x, sigmas[k]), noise_sampler()
            halfway = ancestral(x, x0, here, middle, z)
            x0 = model(halfway, torch.tensor(middle, dtype=x.dtype))
            c = correlation(here, middle, there)
            x = ancestral(x, x0, here, there, c * z + math.sqrt(1 - c * c) * noise_sampler())
        return x

    return sampler


def of_one_path(here: float, middle: float, there: float) -> float:
    """Both noises belong to one path of the reverse SDE."""
    return there / middle * math.sqrt((1 - (middle / here) ** 2) / (1 - (there / here) ** 2))


def of_brownian_motion_in_sigma(here: float, middle: float, there: float) -> float:
    """What k-diffusion's BrownianTreeNoiseSampler gives."""
    return math.sqrt((here - middle) / (here - there))


def test_the_stage_of_dpmpp_sde_is_on_the_path_of_the_step() -> None:
    levels = even_levels(SCHEDULES["ve"], 9)
    assert plan_of(dpmpp_sde, levels).difference(plan_of(in_k_diffusion(of_one_path), levels)) < 1e-12


def test_draws_that_know_nothing_of_the_stage_cost_an_order() -> None:
    def order(correlation: Any) -> float:
        few, many = (variance_error(in_k_diffusion(correlation), steps, 0.04) for steps in (60, 120))
        return order_of(few, many, 2)

    assert order(of_one_path) > 1.8 and order(of_brownian_motion_in_sigma) > 1.8
    assert order(lambda *_: 0.0) == pytest.approx(1, abs=0.2)


def test_a_sampler_of_k_diffusion_that_names_intervals_gets_their_brownian_motion() -> None:
    def sampler(model, x, sigmas, noise_sampler):
        for k, (here, there) in enumerate(pairwise(sigmas.tolist())):
            middle, down = math.sqrt(here * there), there**2 / here
            x0 = model(x, sigmas[k])
            down_s, up_s = middle**2 / here, math.sqrt(middle**2 - (middle**2 / here) ** 2)
            halfway = down_s / here * x + (1 - down_s / here) * x0 + up_s * noise_sampler(sigmas[k], middle)
            x0 = model(halfway, torch.tensor(middle, dtype=x.dtype))
            up = math.sqrt(there**2 - down**2)
            x = down / here * x + (1 - down / here) * x0 + up * noise_sampler(sigmas[k], sigmas[k + 1])
        return x

    levels = even_levels(SCHEDULES["ve"], 9)
    told = in_k_diffusion(of_brownian_motion_in_sigma)
    assert plan_of(sampler, levels).difference(plan_of(told, levels)) < 1e-12


# Limits


ALL_METHODS = ODE_METHODS + SDE_METHODS


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", [Prediction.V, Prediction.FLOW])
def test_finite_with_few_steps_from_no_signal_to_clean(schedule: str, prediction: Prediction) -> None:
    training = Training(SCHEDULES[schedule], prediction)
    for function, options in ALL_METHODS:
        for steps in (1, 2, 3):
            plan = build_sampler(
                function, steps=steps, training=training, grid=Grid("linspace", grids.linspace), options=options
            )
            assert isinstance(plan, Plan)
            assert all(math.isfinite(c) for row in plan.rows for c in (*row.x, *row.m, *row.z))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("function", "options"), ALL_METHODS)
def test_one_step_lands_on_the_estimate(function: Any, options: dict[str, Any], schedule: str) -> None:
    plan = plan_of(function, grids.trailing(SCHEDULES[schedule], 1), **options)
    (row,) = plan.rows
    assert row.m == (1.0,) and not any(row.x) and not any(row.z)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("function", "options"), ODE_METHODS)
def test_data_that_is_one_point_is_solved_exactly(function: Any, options: dict[str, Any], schedule: str) -> None:
    """x0 is the point throughout, and the noise stays as it is, whichever levels are visited."""
    grid = grids.linspace(SCHEDULES[schedule], 6)
    levels = replace(grid, points=grid.points[:-1])  # ends above clean
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    denoiser = Denoiser(lambda x, u, level: torch.full_like(u, 0.8), Training(grid.schedule, Prediction.SAMPLE))
    out = function(denoiser, levels[0].alpha * 0.8 + levels[0].sigma * x, levels, lambda: x, **options)
    assert torch.allclose(out, levels[-1].alpha * 0.8 + levels[-1].sigma * x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("function", "options"), ALL_METHODS)
def test_the_scaling_of_x_is_no_part_of_the_method(function: Any, options: dict[str, Any]) -> None:
    """VP, VE and flow models hold the same sample at different scales; x / alpha comes out the same."""
    outs = []
    for name in ("vp", "ve", "flow"):
        levels = even_levels(SCHEDULES[name], 8)
        training = Training(levels.schedule, Prediction.SAMPLE)
        generator = torch.Generator().manual_seed(1)
        out = function(
            Denoiser(lambda x, u, level: posterior_mean(u, level), training),
            levels[0].alpha * 60 * torch.linspace(-2, 2, 5, dtype=torch.float64),
            levels,
            partial(torch.randn, 5, dtype=torch.float64, generator=generator),
            **options,
        )
        outs.append(out / levels[-1].alpha)
    assert torch.allclose(outs[0], outs[1], rtol=1e-8) and torch.allclose(outs[0], outs[2], rtol=1e-8)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        *((dpmpp_sde, options) for options in ({"r": 0.0}, {"r": 1.2}, {"eta": -0.1}, {"eta": 1.1})),
        (dpmpp_2m_sde, {"eta": -0.1}),
        (dpmpp_3m, {"eta": -0.1}),
    ],
)
def test_options_out_of_range(function: Any, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=f"{name}="):
        plan_of(function, even_levels(SCHEDULES["vp"], 2), **options)


# Relatives


def test_first_order_is_euler() -> None:
    levels = grids.trailing(SCHEDULES["vp"], 7)
    plan = plan_of(euler, levels)
    assert plan.difference(plan_of(deis, levels, order=1)) < 1e-12
    assert plan.difference(plan_of(unipc, levels, order=1, disable_corrector=range(7))) < 1e-12


def test_without_noise_the_stochastic_ones_are_the_others() -> None:
    levels = grids.trailing(SCHEDULES["vp"], 7)
    for solver_type in ("midpoint", "heun"):
        plan = plan_of(dpmpp_2m, levels, solver_type=solver_type)
        assert plan.difference(plan_of(dpmpp_2m_sde, levels, eta=0.0, solver_type=solver_type)) == 0
        small = plan_of(dpmpp_2m_sde, levels, eta=1e-14, solver_type=solver_type)
        assert unrolled_difference(plan, small) < 1e-5


def test_unipc_without_its_corrector_is_dpmpp_2m() -> None:
    levels = grids.trailing(SCHEDULES["vp"], 12)
    predictor = plan_of(unipc, levels, disable_corrector=range(12))
    assert plan_of(dpmpp_2m, levels).difference(predictor) < 1e-12
    assert unrolled_difference(predictor, plan_of(unipc, levels, disable_corrector=range(6))) > 1e-3


def test_deis_keeps_its_order_where_float32_coefficients_lose_it() -> None:
    """The coefficients of diffusers' DEIS-3 are differences of float32 numbers; see the parity tests."""
    errors = [error(deis, even_levels(SCHEDULES["vp"], steps), order=3) for steps in (96, 192, 384, 768)]
    assert all(after < before / 6.5 for before, after in pairwise(errors))
