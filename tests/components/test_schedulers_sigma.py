"""Solvers in sigma space against exact solutions, on VP, VE and flow levels."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffexp.components.grids import karras
from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import bind
from diffexp.components.schedulers.ddim import ddim
from diffexp.components.schedulers.dpm2 import dpm2
from diffexp.components.schedulers.dpm2_ancestral import dpm2_ancestral
from diffexp.components.schedulers.edm_stochastic import edm_stochastic
from diffexp.components.schedulers.euler import euler
from diffexp.components.schedulers.euler_ancestral import euler_ancestral
from diffexp.components.schedulers.heun import heun
from diffexp.components.schedulers.lms import lms
from diffexp.components.schedulers.restart import restart
from diffexp.components.schedulers.shared.sigma_space import SigmaSpace, add_noise, ancestral_split
from diffexp.errors import InputError
from diffexp.plan.compile import compile_method, run_directly
from diffexp.plan.difference import unrolled_difference
from diffexp.plan.levels import Level, Levels, Schedule
from diffexp.plan.method import FunctionMethod
from diffexp.plan.moments import gaussian_output
from diffexp.plan.predictions import Prediction
from diffexp.plan.schedules import FlowSchedule, VESchedule, VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training
from tests.parity.common import compiled

SCHEDULES: dict[str, Schedule] = {"vp": VPSchedule.from_betas(), "ve": VESchedule(), "flow": FlowSchedule()}
SIGNALLESS: dict[str, Schedule] = {
    "zero_snr": VPSchedule.from_betas(rescale_betas_zero_snr=True),
    "shifted": FlowSchedule(shift=3.0),
}
ALL = (heun, dpm2, lms, euler_ancestral, dpm2_ancestral, edm_stochastic, restart)


def smooth_levels(schedule: Schedule, steps: int, variance: float) -> Levels:
    """From nearly pure noise (flow: pure) to a level that still has some, where every solution is smooth."""
    if isinstance(schedule, FlowSchedule):
        sigmas = np.linspace(1.0, 0.05, steps + 1)
    else:
        sigmas = np.linspace(80 ** (1 / 7), 0.05 ** (1 / 7), steps + 1) ** 7
    points = tuple(schedule.at_sigma(sigma) for sigma in sigmas.tolist())
    return Levels(points, schedule, math.sqrt(points[0].alpha ** 2 * variance + points[0].sigma ** 2))


def plan_on(levels: Levels, scheduler: Callable[..., Tensor], **options: Any) -> Plan:
    training = Training(levels.schedule, Prediction.V)
    return compile_method(FunctionMethod(scheduler, levels, training, options, scheduler.__name__))


def error_of_law(schedule: Schedule, steps: int, scheduler: Callable[..., Tensor], **options: Any) -> float:
    """Of the standard deviation of the output, on Gaussian data and from a start of the right law: no sampling."""
    variance = 0.25
    levels = smooth_levels(schedule, steps, variance)
    data = torch.zeros(1), torch.tensor([variance], dtype=torch.float64)
    _, found = gaussian_output(plan_on(levels, scheduler, **options), *data, Prediction.V)
    return abs(found.sqrt().item() - math.sqrt(levels[-1].alpha ** 2 * variance + levels[-1].sigma ** 2))


LAWS: list[tuple[Any, dict[str, Any], int]] = [
    (heun, {}, 2),
    (dpm2, {}, 2),
    (lms, {"order": 1}, 1),
    (lms, {"order": 2}, 2),
    (lms, {"order": 3}, 3),
    (lms, {"order": 4}, 4),
    (euler_ancestral, {}, 1),
    (euler_ancestral, {"eta": 0.5}, 1),
    (dpm2_ancestral, {}, 2),
    (dpm2_ancestral, {"eta": 0.5}, 2),
    (edm_stochastic, {}, 2),
    (edm_stochastic, {"s_churn": 1.0, "s_tmin": 0.5, "s_tmax": 2.0}, 2),
    (restart, {}, 2),
]
# On flow paths the first step, of order 1, leaves order 2 where the slope changes from the start.
OF_KINDS = [(kind, *law) for kind in SCHEDULES for law in LAWS if kind != "flow" or law[1].get("order", 0) <= 2]


@pytest.mark.parametrize(("kind", "scheduler", "options", "order"), OF_KINDS)
def test_the_law_converges_with_the_order(kind: str, scheduler: Any, options: dict[str, Any], order: int) -> None:
    """Twice the steps, 2^order times nearer to the exact law: also for samplers that add noise."""
    coarse, fine = (error_of_law(SCHEDULES[kind], steps, scheduler, **options) for steps in (40, 80))
    assert coarse < 0.1
    assert order - 0.4 < math.log2(coarse / fine) < order + 1.3


# Data with two modes: the solution is no longer linear, but in one dimension the flow keeps quantiles

MODES, STD = torch.tensor([-1.0, 0.6], dtype=torch.float64), 0.3


def velocity(u: Tensor, level: Level) -> Tensor:
    """v = alpha * eps - sigma * x0 of the optimal denoiser for two equally likely modes."""
    variance = (level.alpha * STD) ** 2 + level.sigma**2
    away = u.unsqueeze(-1) - level.alpha * MODES
    center = torch.softmax(-(away**2) / (2 * variance), dim=-1) @ MODES
    whitened = (u - level.alpha * center) / variance
    x0, eps = center + level.alpha * STD**2 * whitened, level.sigma * whitened
    return level.alpha * eps - level.sigma * x0


def share_below(x: Tensor, level: Level) -> Tensor:
    std = math.sqrt((level.alpha * STD) ** 2 + level.sigma**2)
    return torch.special.ndtr((x.unsqueeze(-1) - level.alpha * MODES) / std).mean(-1)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(
    ("scheduler", "options", "order"), [(heun, {}, 2), (dpm2, {}, 2), (lms, {"order": 2}, 2), (lms, {}, 4)]
)
def test_quantiles_stay_where_they_are(kind: str, scheduler: Any, options: dict[str, Any], order: int) -> None:
    def error(steps: int) -> float:
        levels = smooth_levels(SCHEDULES[kind], steps, 1.0)
        start = levels.start_std * torch.linspace(-2, 2, 9, dtype=torch.float64)
        method = FunctionMethod(scheduler, levels, Training(levels.schedule, Prediction.V), options, "")
        end = run_directly(method, velocity, start, lambda: start)
        return float((share_below(end, levels[-1]) - share_below(start, levels[0])).abs().max())

    order = 2 if kind == "flow" else order  # see above
    coarse, fine = error(60), error(120)
    assert fine < 5e-3
    assert order - 0.5 < math.log2(coarse / fine)


# The ends


@pytest.mark.parametrize("kind", [*SCHEDULES, *SIGNALLESS])
@pytest.mark.parametrize("scheduler", ALL)
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_data_at_a_point_is_found_exactly(kind: str, scheduler: Any, steps: int) -> None:
    """The solution is a straight line then, which every solver follows exactly, whatever the noise it adds."""
    schedule = (SCHEDULES | SIGNALLESS)[kind]
    training = Training(schedule, Prediction.V)
    plan = compiled(scheduler, steps, training, "trailing")
    assert plan.nfe >= steps
    mean, variance = gaussian_output(plan, torch.tensor([0.7]), torch.zeros(1), Prediction.V)
    assert mean.item() == pytest.approx(0.7, abs=1e-7)
    assert variance.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("scheduler", [heun, dpm2, lms, dpm2_ancestral, edm_stochastic, restart])
def test_nothing_is_lost_without_a_signal_at_the_start(scheduler: Any) -> None:
    """Flow from alpha = 0, and from just below: the table has no seam there."""
    schedule = FlowSchedule()
    full = smooth_levels(schedule, 10, 1.0)
    almost = replace(full, points=(schedule.at_sigma(1 - 1e-9), *full.points[1:]), start_std=full.start_std)
    one, other = plan_on(full, scheduler), plan_on(almost, scheduler)
    assert unrolled_difference(one, other) < 1e-6


# Which methods are the same


@pytest.mark.parametrize("kind", SCHEDULES)
def test_special_cases_are_simpler_methods(kind: str) -> None:
    def plan(scheduler: Any, **options: Any) -> Plan:
        return compiled(scheduler, 7, Training(SCHEDULES[kind], Prediction.V), "trailing", **options)

    for special, simple in [
        (plan(euler_ancestral, eta=0.0), plan(euler)),
        (plan(lms, order=1), plan(euler)),
        (plan(dpm2_ancestral, eta=0.0), plan(dpm2)),
        (plan(edm_stochastic, s_churn=0.0), plan(heun)),
        (plan(edm_stochastic, s_tmin=3.0, s_tmax=3.001), plan(heun)),
        (plan(restart, intervals=[]), plan(heun)),
    ]:
        assert unrolled_difference(special, simple) < 1e-13, special.name
    assert plan(euler_ancestral).draws == 6
    assert unrolled_difference(plan(heun), plan(dpm2)) > 1e-3


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_euler_ancestral_is_ddim_with_noise(eta: float) -> None:
    """On the same timesteps, but for the start: an ancestral chain starts at N(0, I)."""
    training, grid = Training(SCHEDULES["vp"]), Grid(timesteps=[901, 640, 333, 20])
    one, other = (
        compile_method(bind(scheduler, steps=4, training=training, grid=grid, options={"eta": eta}))
        for scheduler in (euler_ancestral, ddim)
    )
    assert replace(one, start_std=1.0).difference(other) < 1e-13


def test_multistep_weights_are_those_of_adams_and_bashforth() -> None:
    """On equal steps; a flow model's output is the slope itself."""
    levels = smooth_levels(FlowSchedule(), 12, 1.0)
    training = Training(levels.schedule, Prediction.FLOW)
    row = compile_method(FunctionMethod(lms, levels, training, {}, "lms")).rows[-1]
    assert row.x == pytest.approx((1.0,))
    step = 0.95 / 12
    assert row.m == pytest.approx([-step * w / 24 for w in (55, -59, 37, -9)])


# Building blocks


@pytest.mark.parametrize("kind", [*SCHEDULES, *SIGNALLESS])
def test_sigma_space_is_a_line_with_its_inverse(kind: str) -> None:
    schedule = (SCHEDULES | SIGNALLESS)[kind]
    space = SigmaSpace.of(schedule)
    assert space.weight == (0.0 if kind in ("vp", "ve") else 1.0)
    x0, eps = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    here, there = (schedule.at_index(index) for index in (999, 300))

    def at(level: Level) -> Tensor:
        return level.alpha * x0 + level.sigma * eps

    slope = space.slope(at(here), x0, here)
    assert torch.allclose(slope, space.slope(at(there), x0, there), atol=1e-12)
    assert torch.allclose(space.move(at(here), slope, here, there), at(there), atol=1e-12)
    again = space.level(space.sigma(there))
    assert (again.alpha, again.sigma) == pytest.approx((there.alpha, there.sigma), rel=1e-12)


@pytest.mark.parametrize("kind", [*SCHEDULES, *SIGNALLESS])
def test_an_ancestral_step_adds_what_the_posterior_has(kind: str) -> None:
    schedule = (SCHEDULES | SIGNALLESS)[kind]
    here, there = schedule.at_index(999), schedule.at_index(400)
    for eta in (0.0, 0.5, 1.0, 1.5):
        down, up = ancestral_split(here.ratio, there.ratio, eta)
        assert math.hypot(down, up) == pytest.approx(there.ratio, rel=1e-12)
    down, up = ancestral_split(here.ratio, there.ratio, 1.0)
    share = 1 - (there.ratio / here.ratio) ** 2  # Ho et al. 2020, eq. 7: beta_tilde over sigma_there^2
    assert up == pytest.approx(there.ratio * math.sqrt(share), rel=1e-12)
    assert down == pytest.approx(there.ratio**2 / here.ratio, rel=1e-12)
    assert ancestral_split(here.ratio, there.ratio, 5.0) == (0.0, there.ratio)
    assert ancestral_split(there.ratio, 0.0, 1.0) == (0.0, 0.0)


def test_added_noise_makes_a_level_of_the_forward_process() -> None:
    for schedule in (SCHEDULES | SIGNALLESS).values():
        here, there = schedule.at_index(100), schedule.at_index(999)
        signal = add_noise(torch.tensor(here.alpha), here, there, torch.tensor(0.0))
        noises = [add_noise(torch.tensor(here.sigma), here, there, torch.tensor(0.0)).item()]
        noises.append(add_noise(torch.tensor(0.0), here, there, torch.tensor(1.0)).item())
        assert signal.item() == pytest.approx(there.alpha, abs=1e-7)
        assert math.hypot(*noises) == pytest.approx(there.sigma, rel=1e-6)


# Restarts

EDM = Training(VESchedule())


@pytest.mark.parametrize(
    ("steps", "intervals", "nfe"),
    [
        (18, [[3, 2, 0.06, 0.30]], 43),
        (18, [[3, 5, 0.06, 0.30]], 55),
        (18, [[3, 20, 0.06, 0.30]], 115),
        (20, [[9, 30, 0.06, 0.20]], 519),
        (
            36,
            [[4, 1, 19.35, 40.79], [4, 1, 1.09, 1.92], [4, 5, 0.59, 1.09], [4, 5, 0.30, 0.59], [6, 6, 0.06, 0.30]],
            203,
        ),
    ],
)
def test_restarts_cost_what_the_paper_says(steps: int, intervals: list[list[float]], nfe: int) -> None:
    """Xu et al. 2023, tables 3 and 5."""
    plan = compiled(restart, steps, EDM, "karras", intervals=intervals)
    assert plan.nfe == nfe
    assert plan.draws == sum(int(interval[1]) for interval in intervals)


def test_a_restart_on_the_grid_visits_its_levels_again() -> None:
    """On the grid of 18 steps that the paper uses for CIFAR-10, these are as many as the paper's N = 3."""
    plan = compiled(restart, 18, EDM, "karras", intervals=[[0, 1, 0.06, 0.30]])
    assert plan.nfe == 35 + 2 * (3 - 1)
    (last,) = (k for k, row in enumerate(plan.rows) if row.z)
    again = [row.level.sigma for row in plan.rows[last + 1 : last + 5]]
    first, second, third = (level.sigma for level in karras(EDM.schedule, 18)[12:15])
    assert again == [first, second, second, third]
    assert (first, third) == pytest.approx((0.30, 0.06), rel=0.02)


def test_a_restart_stays_below_the_start() -> None:
    """From the middle, as for image to image, noise above that of the start would throw away the image."""
    full = karras(EDM.schedule, 18)
    middle = Levels(full.points[10:], full.schedule, full[10].sigma)
    for count in (0, 5):
        plan = plan_on(middle, restart, intervals=[[count, 1, 0.06, 40.0]])
        assert plan.draws == 1
        assert max(row.level.ratio for row in plan.rows) == pytest.approx(middle[0].ratio, rel=1e-12)


def test_a_grid_too_coarse_for_a_restart_has_none() -> None:
    assert unrolled_difference(compiled(restart, 3, EDM, "karras"), compiled(heun, 3, EDM, "karras")) == 0


# Options that make no sense


@pytest.mark.parametrize(
    ("scheduler", "options", "message"),
    [
        (euler_ancestral, {"eta": -0.1}, "eta=-0.1 must be at least 0"),
        (dpm2_ancestral, {"eta": -1.0}, "eta=-1 must be at least 0"),
        (edm_stochastic, {"s_churn": -1.0}, "s_churn=-1 must be at least 0"),
        (restart, {"intervals": [[3, 2, 0.06]]}, r"should be \[N, K, t_min, t_max\]"),
        (restart, {"intervals": [[1, 2, 0.06, 0.3]]}, "whole N"),
        (restart, {"intervals": [[3, 0.5, 0.06, 0.3]]}, "whole N"),
        (restart, {"intervals": [[3, 2, 0.3, 0.06]]}, "0 <= t_min < t_max"),
        (restart, {"rho": 0.0}, "rho=0 must be greater than 0"),
    ],
)
def test_bad_options_are_refused(scheduler: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compiled(scheduler, 4, EDM, **options)
