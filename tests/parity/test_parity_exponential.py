"""The solvers that step in log SNR against their classes in diffusers, on the very levels that these visit."""

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from diffexp.components.grids import exponential
from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import bind
from diffexp.components.schedulers.deis import deis
from diffexp.components.schedulers.dpmpp_2m import dpmpp_2m
from diffexp.components.schedulers.dpmpp_2m_sde import dpmpp_2m_sde
from diffexp.components.schedulers.dpmpp_3m import dpmpp_3m
from diffexp.components.schedulers.shared.exponential import data_step, phi, step_length, step_orders
from diffexp.components.schedulers.unipc import unipc
from diffexp.plan.compile import compile_method
from diffexp.plan.levels import Level, Levels, Schedule
from diffexp.plan.predictions import Prediction
from diffexp.plan.schedules import FlowSchedule, VPSchedule
from diffexp.plan.training import Training
from tests.exact_flow import distance, error, even_levels, order_of, posterior_mean, solved
from tests.parity.common import BETAS, EXACT, PREDICTIONS, training_of, unrolled_difference

# Typed loosely, because tests hand over options as dictionaries.
DPMSolver: Any = diffusers.DPMSolverMultistepScheduler
UniPC: Any = diffusers.UniPCMultistepScheduler
DEIS: Any = diffusers.DEISMultistepScheduler

CAST = 2e-5
"""diffusers' DPM-Solver casts every sample to float32, and divides it by an alpha down to 0.006."""

SPACINGS: dict[str, dict[str, Any]] = {
    "linspace": {"timestep_spacing": "linspace"},
    "leading": {"timestep_spacing": "leading", "steps_offset": 1},
    "trailing": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
}
REPEATING = ("karras", "exponential")
"""On these diffusers' DEIS visits the lowest level twice; see below."""


def levels_of(theirs: Any) -> Callable[[Schedule, int], Levels]:
    """The grid that a scheduler of diffusers really visits, as it says after ``set_timesteps``."""

    def grid(schedule: Schedule, steps: int) -> Levels:
        used = copy.deepcopy(theirs)
        used.set_timesteps(steps)
        sigmas, points = used.sigmas.tolist(), []
        for timestep, sigma in zip([*used.timesteps.tolist(), 0], sigmas):
            alpha = 1 - sigma if used.config.use_flow_sigmas else 1 / math.hypot(1, sigma)
            points.append(Level(float(timestep), alpha, sigma if used.config.use_flow_sigmas else sigma * alpha))
        return Levels(tuple(points), schedule, 1.0)

    return grid


def difference(function: Any, theirs: Any, steps: int, training: Training | None = None, **options: Any) -> float:
    training = training or training_of(theirs)
    ours = compile_method(
        bind(function, steps=steps, training=training, grid=Grid("given", levels_of(theirs)), options=options)
    )
    return unrolled_difference(ours, compile_method(bind(theirs, steps=steps, training=training)))


# Every betas with every spacing; the predictions, options and step counts take turns.
TURNS = itertools.cycle([(3, 3, "heun"), (7, 2, "midpoint"), (16, 3, "midpoint"), (9, 1, "heun")])
CASES = [
    (betas, spacing, prediction, *turn)
    for (betas, spacing), prediction, turn in zip(
        itertools.product(BETAS, SPACINGS), itertools.cycle(PREDICTIONS), TURNS, strict=False
    )
    # Its sigmas reach 20000, where rounded timesteps repeat; see below.
    if betas != "cosine" or spacing not in REPEATING
]


@pytest.mark.parametrize(("betas", "spacing", "prediction", "steps", "order", "rule"), CASES)
def test_tables_equal_those_of_diffusers(
    betas: str, spacing: str, prediction: str, steps: int, order: int, rule: str
) -> None:
    config: dict[str, Any] = {**BETAS[betas], "prediction_type": prediction, **SPACINGS[spacing]}
    exact = 1e-10 if betas == "cosine" else EXACT
    assert difference(unipc, UniPC(**config, solver_order=order), steps, order=order) < exact
    if spacing not in REPEATING:
        assert difference(deis, DEIS(**config, solver_order=order), steps, order=order) < exact
    if betas != "cosine":  # at alpha = 5e-5 a sample in float32 has no digits left for x0
        assert difference(dpmpp_2m, DPMSolver(**config, solver_type=rule), steps, solver_type=rule) < CAST
        theirs = DPMSolver(**config, solver_type=rule, algorithm_type="sde-dpmsolver++")
        assert difference(dpmpp_2m_sde, theirs, steps, solver_type=rule) < CAST


@settings(max_examples=15)
@given(
    steps=st.integers(1, 20),
    order=st.integers(1, 3),
    variant=st.sampled_from(["bh1", "bh2"]),
    predict=st.sampled_from(["data", "noise"]),
    rule=st.sampled_from(["midpoint", "heun"]),
    prediction=st.sampled_from(PREDICTIONS),
    spacing=st.sampled_from(["linspace", "leading"]),
    lower_final=st.booleans(),
    uncorrected=st.lists(st.integers(0, 6), max_size=4),
)
def test_tables_equal_above_clean(
    steps: int,
    order: int,
    variant: str,
    predict: str,
    rule: str,
    prediction: str,
    spacing: str,
    lower_final: bool,
    uncorrected: list[int],
) -> None:
    """Where the levels end at the lowest training level, every option of diffusers works too."""
    config: dict[str, Any] = {**SPACINGS[spacing], "prediction_type": prediction, "lower_order_final": lower_final}
    theirs = UniPC(
        **config,
        solver_order=order,
        solver_type=variant,
        predict_x0=predict == "data",
        disable_corrector=uncorrected,
        final_sigmas_type="sigma_min",
    )
    options = {"variant": variant, "predict": predict, "disable_corrector": uncorrected}
    assert difference(unipc, theirs, steps, order=order, lower_order_final=lower_final, **options) < 1e-11
    assert (
        difference(deis, DEIS(**config, solver_order=order), steps, order=order, lower_order_final=lower_final) < 1e-11
    )
    theirs = DPMSolver(**config, solver_type=rule, final_sigmas_type="sigma_min")
    assert difference(dpmpp_2m, theirs, steps, solver_type=rule, lower_order_final=lower_final) < CAST


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [2, 5, 20])
def test_flow_models(steps: int, shift: float) -> None:
    config: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    training = Training(FlowSchedule(shift), Prediction.FLOW)
    assert difference(unipc, UniPC(**config), steps, training) < EXACT
    assert difference(dpmpp_2m, DPMSolver(**config), steps, training) < CAST
    assert difference(dpmpp_2m_sde, DPMSolver(**config, algorithm_type="sde-dpmsolver++"), steps, training) < CAST


# DPM-Solver++(3M): the second derivative


def taylor_3m(denoise, x, levels, noise, *, second: float):
    """DPM-Solver++(3M) in the terms of its authors' code, with a factor on D2, its estimate of h^2 x0'' / 2."""
    past: list[Any] = []
    for (here, there), order in zip(levels.pairs(), step_orders(levels, 3, levels.steps < 15)):
        past = [(here, denoise(x, here)), *past[:2]]
        h = step_length(here, there)
        estimate = past[0][1]
        if order > 1:
            r0 = step_length(past[1][0], here) / h
            slope = (past[0][1] - past[1][1]) / r0
            if order == 3:
                r1 = step_length(past[2][0], past[1][0]) / h
                d2 = (slope - (past[1][1] - past[2][1]) / r1) / (r0 + r1)
                estimate = estimate + phi(3, -h) / phi(1, -h) * second * d2
                slope = slope + r0 * d2
            estimate = estimate + phi(2, -h) / phi(1, -h) * slope
        x = data_step(x, here, there, estimate)
    return x


@pytest.mark.parametrize("steps", [9, 20])
def test_third_order_takes_the_whole_second_derivative(steps: int) -> None:
    """Taylor's terms are h^(n+1) phi_(n+1) x0^(n), so h^2 x0'' / 2 comes with 2 phi_3; the authors' code has phi_3."""
    theirs = DPMSolver(solver_order=3, solver_type="heun")
    assert difference(taylor_3m, theirs, steps, second=1.0) < CAST
    assert difference(dpmpp_3m, theirs, steps) > 1e-2
    levels = even_levels(training_of(theirs).schedule, steps)
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)
    assert torch.allclose(solved(dpmpp_3m, levels, start), solved(taylor_3m, levels, start, second=2.0), atol=1e-12)


def run_class(scheduler: Any, levels: Levels, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A scheduler of diffusers as it is, on given levels and the exact model; x [N, 1] in float64."""
    scheduler.set_timesteps(levels.steps)
    scheduler.sigmas = torch.tensor([level.ratio for level in levels], dtype=dtype)
    scheduler.timesteps = torch.arange(levels.steps, 0, -1)
    for level, timestep in zip(levels, scheduler.timesteps):
        x = scheduler.step(posterior_mean(x, level), timestep, x, return_dict=False)[0]
    return x


def class_error(scheduler: Any, levels: Levels, dtype: torch.dtype = torch.float32) -> float:
    return distance(lambda start: run_class(scheduler, levels, start.unsqueeze(1), dtype).squeeze(1), levels)


def test_the_class_has_order_2_and_ours_3() -> None:
    config: dict[str, Any] = {"solver_order": 3, "prediction_type": "sample", "final_sigmas_type": "sigma_min"}
    grids = [even_levels(VPSchedule.from_betas(), steps) for steps in (40, 320)]
    theirs = [class_error(DPMSolver(**config), levels) for levels in grids]
    ours = [error(dpmpp_3m, levels) for levels in grids]
    assert order_of(*theirs, ratio=8) == pytest.approx(2, abs=0.3)
    assert order_of(*ours, ratio=8) == pytest.approx(3, abs=0.3)
    assert ours[1] < theirs[1] / 10


# What goes wrong in the classes


def test_deis_of_diffusers_gets_worse_with_more_steps() -> None:
    """Its coefficients are small differences of large float32 numbers; with sigmas in float64 it is as good as ours."""
    config: dict[str, Any] = {"solver_order": 3, "prediction_type": "sample"}
    grids = [even_levels(VPSchedule.from_betas(), steps, low=0.2) for steps in (48, 96)]
    single, double = (
        [class_error(DEIS(**config), levels, dtype) for levels in grids] for dtype in (torch.float32, torch.float64)
    )
    ours = [error(deis, levels, order=3) for levels in grids]
    assert single[1] > single[0]
    assert ours == pytest.approx(double, rel=1e-6) and ours[1] < ours[0] / 5


@pytest.mark.parametrize("option", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
def test_deis_of_diffusers_wastes_its_last_evaluation(option: str) -> None:
    """It ends at the lowest level of its grid, twice: the last output of the network changes nothing, noise is left."""
    plan = compile_method(bind(DEIS(**{option: True}), steps=6, training=training_of(DEIS())))
    assert plan.rows[-1].m == (0.0,) and plan.rows[-1].x == (1.0,)
    (visited,) = {levels_of(DEIS(**{option: True}))(VPSchedule.from_betas(), 6)[k].sigma for k in (-1, -2)}
    assert visited > 0


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({"solver_type": "bh1"}, {"variant": "bh1"}),
        ({"predict_x0": False}, {"predict": "noise"}),
        ({"lower_order_final": False}, {"lower_order_final": False}),
    ],
)
def test_unipc_of_diffusers_ends_in_nan_or_infinity(config: dict[str, Any], options: dict[str, Any]) -> None:
    """But for the default options its step to sigma = 0 reckons with h = infinity; ours lands on the x0 estimate."""
    theirs = UniPC(**config, prediction_type="sample")
    theirs.set_timesteps(20)
    levels = levels_of(theirs)(VPSchedule.from_betas(), 20)
    x = start = torch.linspace(-1, 1, 4).unsqueeze(1)
    for level, timestep in zip(levels, theirs.timesteps):
        x = theirs.step(posterior_mean(x, level), timestep, x, return_dict=False)[0]
    assert not x.isfinite().any()
    assert solved(unipc, levels, start.double(), **options).abs() == pytest.approx(1, abs=0.6)


def test_timesteps_of_diffusers_are_cut_to_integers() -> None:
    """On sigma grids the network is told a timestep that is up to 1 below the noise that it sees."""
    theirs = DPMSolver(use_exponential_sigmas=True)
    theirs.set_timesteps(12)
    late = [ours.timestep - t for ours, t in zip(exponential(VPSchedule.from_betas(), 12), theirs.timesteps.tolist())]
    assert all(-1e-3 < gap < 1 for gap in late) and max(late) > 0.8


def test_classes_of_diffusers_start_one_step_late_where_rounded_timesteps_repeat() -> None:
    """Karras' grid on cosine betas: the first two sigmas round to one timestep, and the first step takes the second."""
    theirs = DPMSolver(beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True)
    theirs.set_timesteps(20)
    assert theirs.timesteps[0] == theirs.timesteps[1] and theirs.sigmas[1] < theirs.sigmas[0] / 1.2
    theirs.step(torch.zeros(1, 1), theirs.timesteps[0], torch.zeros(1, 1))
    assert theirs.step_index == 2
