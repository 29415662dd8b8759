"""Grids: levels that fall to the clean end, on every kind of schedule; lists that are used as given or refused."""

import functools
import math
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from diffexp.components import grids
from diffexp.components.grids.ays import TABLES
from diffexp.components.grids.beta import beta_quantiles
from diffexp.components.grids.choice import Grid, MakeLevels
from diffexp.components.sampler import build_sampler
from diffexp.components.schedulers.ddim import ddim
from diffexp.components.schedulers.ddpm import ddpm
from diffexp.components.schedulers.euler import euler
from diffexp.errors import InputError
from diffexp.plan.levels import CLEAN, Levels, Schedule
from diffexp.plan.predictions import Prediction
from diffexp.plan.schedules import FlowSchedule, VESchedule, VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

# Typed loosely, because tests hand over options as dictionaries.
DDIMScheduler: Any = diffusers.DDIMScheduler

SCHEDULE = VPSchedule.from_betas()
SD = VPSchedule.from_betas(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
ZERO_SNR = VPSchedule.from_betas(rescale_betas_zero_snr=True)
FEW = VPSchedule.from_betas(beta_start=0.001, beta_end=0.2, num_train_timesteps=100)
SCHEDULES: dict[str, Schedule] = {
    "vp": SCHEDULE,
    "sd": SD,
    "zero_snr": ZERO_SNR,
    "few": FEW,
    "ve": VESchedule(),
    "edm": VESchedule(sigma_data=0.5),
    "flow": FlowSchedule(),
    "shifted": FlowSchedule(shift=3.0),
}


def all_of_lcm(schedule: Schedule, steps: int) -> Levels:
    """With as many parts as the training has timesteps, so that there can be as many steps."""
    return grids.lcm(schedule, steps, original_steps=schedule.num_train_timesteps)


GRIDS: dict[str, MakeLevels] = {
    name: getattr(grids, name)
    for name in (
        "linspace leading trailing sgm_uniform flow karras exponential polyexponential cosine beta beta_timesteps ays"
    ).split()
}
GRIDS["lcm"] = all_of_lcm
FINITE = ("karras", "exponential", "polyexponential", "beta")
"""Cannot begin at infinite sigma."""
PAIRS = [
    (grid, schedule)
    for grid in GRIDS
    for schedule in SCHEDULES
    if (grid != "flow" or schedule in ("flow", "shifted")) and (grid not in FINITE or schedule != "zero_snr")
]


def test_every_grid_of_the_package_is_tested_here() -> None:
    from diffexp.catalog.discover import discover

    built_in = {name for name, entry in discover().of_kind("grid").items() if entry.built_in}
    assert built_in == set(GRIDS)


@pytest.mark.parametrize(("grid", "schedule"), PAIRS)
def test_every_grid_descends_to_the_clean_end(grid: str, schedule: str) -> None:
    on = SCHEDULES[schedule]
    for steps in (1, 2, 3, 10, 227, 1000):
        if steps > on.num_train_timesteps:
            continue
        levels = GRIDS[grid](on, steps)
        assert levels.steps == steps
        assert levels[-1] == CLEAN
        assert all(here.ratio > there.ratio for here, there in levels.pairs()), f"{steps} steps"
        assert all(0 <= level.alpha <= 1 and level.sigma >= 0 for level in levels)
        low, high = on.timestep_range
        assert all(low <= level.timestep <= high for level in levels[:-1])
        first = levels[0]
        assert levels.start_std == (math.hypot(first.alpha, first.sigma) if grid == "leading" else first.sigma)


@given(steps=st.integers(1, 1000), grid=st.sampled_from(sorted(set(GRIDS) - {"flow"})))
def test_no_number_of_steps_makes_two_levels_one(steps: int, grid: str) -> None:
    levels = GRIDS[grid](SCHEDULE, steps)
    assert all(here.ratio > there.ratio for here, there in levels.pairs())
    whole = [level.timestep for level in levels.on_training_timesteps()[:-1]]
    assert len(set(whole)) == steps


@pytest.mark.parametrize("grid", sorted(set(GRIDS) - {"flow"}))
@pytest.mark.parametrize(
    ("steps", "message"), [(0, "at least 1"), (-3, "at least 1"), (1001, "more than the 1000 timesteps")]
)
def test_impossible_numbers_of_steps(grid: str, steps: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GRIDS[grid](SCHEDULE, steps)


@pytest.mark.parametrize("name", ["linspace", "leading", "trailing"])
@given(steps=st.integers(1, 1000))
def test_uniform_grids_have_the_timesteps_of_diffusers(name: str, steps: int) -> None:
    theirs = DDIMScheduler(timestep_spacing=name)
    theirs.set_timesteps(steps)
    ours = GRIDS[name](SCHEDULE, steps).on_training_timesteps()
    # At 227 steps (and a few other counts) diffusers' trailing grid has one timestep too many, a -1: a rounding fault.
    assert [level.timestep for level in ours[:-1]] == theirs.timesteps.tolist()[:steps]


def test_leading_with_an_offset() -> None:
    theirs = DDIMScheduler(timestep_spacing="leading", steps_offset=1)
    theirs.set_timesteps(7)
    ours = grids.leading(SCHEDULE, 7, offset=1)
    assert [level.timestep for level in ours[:-1]] == theirs.timesteps.tolist()
    # One step for every timestep of the training: there is no room for an offset, and no level is visited twice.
    assert [level.timestep for level in grids.leading(FEW, 100, offset=1)[:-1]] == list(range(99, -1, -1))
    with pytest.raises(InputError, match="offset=-1"):
        grids.leading(SCHEDULE, 7, offset=-1)


def test_sgm_uniform_is_linspace_of_one_step_more_without_its_last_level() -> None:
    assert grids.sgm_uniform(SCHEDULE, 6)[:-1] == grids.linspace(SCHEDULE, 7)[:-2]
    assert grids.sgm_uniform(SCHEDULE, 1)[0].timestep == 999


def test_polyexponential_with_rho_1_is_exponential() -> None:
    assert grids.polyexponential(SCHEDULE, 9) == grids.exponential(SCHEDULE, 9)
    logs = [math.log(level.ratio) for level in grids.polyexponential(VESchedule(), 5, rho=2.0)[:-1]]
    low, high = logs[-1], logs[0]
    assert [(value - low) / (high - low) for value in logs] == pytest.approx([1, 9 / 16, 1 / 4, 1 / 16, 0])


@given(timestep=st.floats(0, 999))
def test_levels_of_zero_terminal_snr_go_up_to_pure_noise(timestep: float) -> None:
    level = ZERO_SNR.at(timestep)
    assert (level.alpha == 0) == (timestep == 999)
    assert ZERO_SNR.at_ratio(level.ratio).timestep == pytest.approx(timestep, abs=0.2)


@pytest.mark.parametrize("schedule", ["vp", "ve", "flow", "zero_snr"])
def test_cosine_turns_by_equal_angles(schedule: str) -> None:
    levels = grids.cosine(SCHEDULES[schedule], 9)
    angles = [math.atan2(level.sigma, level.alpha) for level in levels[:-1]]
    assert np.diff(angles) == pytest.approx([(angles[-1] - angles[0]) / 8] * 8)
    assert (levels[0].alpha == 0) == (schedule in ("flow", "zero_snr"))


def test_cosine_visits_the_levels_of_the_cosine_schedule() -> None:
    """alpha = cos(pi / 2 t) at equally spaced t, but for the schedule's small offset s and its capped end."""
    schedule = VPSchedule.from_betas(beta_schedule="squaredcos_cap_v2")
    ours = grids.cosine(schedule, 20, sigma_min=schedule.at(30).ratio, sigma_max=schedule.at(980).ratio)
    assert [level.timestep for level in ours[:-1]] == pytest.approx(np.linspace(980, 30, 20).tolist(), abs=0.6)


@given(p=st.floats(0, 1), a=st.floats(0.05, 20), b=st.floats(0.05, 20))
def test_beta_quantiles_are_those_of_scipy(p: float, a: float, b: float) -> None:
    (x,) = beta_quantiles(np.array([p]), a, b)
    assert special.betainc(a, b, x) == pytest.approx(p, abs=1e-12)


def test_beta_quantiles_of_the_default_grid() -> None:
    for p in (1e-12, 1e-3, 0.25, 0.5, 0.75, 1 - 1e-3):
        assert beta_quantiles(np.array([p]), 0.6, 0.6) == pytest.approx([special.betaincinv(0.6, 0.6, p)], rel=1e-12)
    assert beta_quantiles(np.array([0.5]), 3.0, 3.0) == pytest.approx([0.5], rel=1e-15)
    assert beta_quantiles(np.array([0.3]), 1.0, 1.0) == pytest.approx([0.3], rel=1e-15)


def test_beta_in_sigma_and_in_time() -> None:
    """With alpha = beta = 1 the quantiles are equally spaced: in sigma for one grid, in time for the other."""
    by_sigma = grids.beta(VESchedule(), 5, alpha=1.0, beta=1.0)
    assert [level.sigma for level in by_sigma[:-1]] == pytest.approx(np.linspace(80, 0.002, 5))
    by_time = grids.beta_timesteps(SCHEDULE, 5, alpha=1.0, beta=1.0)
    assert [level.timestep for level in by_time[:-1]] == pytest.approx([999, 799.2, 599.4, 399.6, 199.8])


def test_beta_timesteps_are_those_of_comfyui() -> None:
    """Before it rounds them to whole timesteps."""
    theirs = special.betaincinv(0.6, 0.6, 1 - np.linspace(0, 1, 20, endpoint=False)) * 999
    assert [level.timestep for level in grids.beta_timesteps(SD, 20)[:-1]] == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(("table", "key"), [("sd15", "StableDiffusion"), ("sdxl", "StableDiffusionXL")])
def test_ays_at_ten_steps_is_the_table(table: str, key: str) -> None:
    levels = grids.ays(SD, 10, table=table)  # pyright: ignore[reportArgumentType]
    assert [level.ratio for level in levels] == pytest.approx(diffusers.schedulers.AysSchedules[f"{key}Sigmas"])
    theirs = diffusers.schedulers.AysSchedules[f"{key}Timesteps"]
    assert [level.timestep for level in levels[:-1]] == pytest.approx(theirs, abs=2.5)


def test_ays_at_other_numbers_of_steps_interpolates_the_logarithms() -> None:
    twice = [level.ratio for level in grids.ays(SD, 20)[:-1]]
    table = TABLES["sd15"]
    assert twice[::2] == pytest.approx(table[:-1])
    assert twice[1::2] == pytest.approx([math.sqrt(a * b) for a, b in zip(table, table[1:])])
    assert [level.ratio for level in grids.ays(SD, 1)[:-1]] == pytest.approx([14.615])


def test_ays_is_for_models_with_as_much_noise() -> None:
    assert grids.ays(FlowSchedule(), 10)[0].ratio == pytest.approx(14.615)
    with pytest.raises(InputError, match="svd begins at sigma 700, above this model's highest, 157.4"):
        grids.ays(SCHEDULE, 10, table="svd")


def test_options_are_checked() -> None:
    for name in FINITE:
        grid: Any = GRIDS[name]
        with pytest.raises(InputError, match="sigma_min < sigma_max"):
            grid(SCHEDULE, 5, sigma_min=3.0, sigma_max=2.0)
        with pytest.raises(InputError, match="sigma_max"):
            grid(ZERO_SNR, 5)
        assert grid(ZERO_SNR, 5, sigma_max=80.0)[0].ratio == pytest.approx(80)
        with pytest.raises(InputError, match="beyond pure noise, which is 1"):
            grid(FlowSchedule(), 5, sigma_max=1.5)
    with pytest.raises(InputError, match="rho"):
        grids.karras(SCHEDULE, 5, rho=0.0)
    with pytest.raises(InputError, match="rho"):
        grids.polyexponential(SCHEDULE, 5, rho=math.nan)
    with pytest.raises(InputError, match="sigma_min < sigma_max"):
        grids.cosine(ZERO_SNR, 5, sigma_min=-1.0)
    with pytest.raises(InputError, match=r"grid\.beta=0 "):
        grids.beta(SCHEDULE, 5, beta=0.0)
    with pytest.raises(InputError, match="flow-matching model"):
        grids.flow(SCHEDULE, 5)
    with pytest.raises(InputError, match="terminal"):
        grids.flow(FlowSchedule(), 5, terminal=1.0)


LISTS: dict[str, Callable[[Schedule, Any], Any]] = {"timesteps": grids.from_timesteps, "sigmas": grids.from_sigmas}


@pytest.mark.parametrize(
    ("schedule", "timesteps"),
    [(SCHEDULE, [900, 333.5, 10]), (VESchedule(), [1.09, 0.0, -1.5]), (FlowSchedule(shift=3.0), [1000, 333.3, 0.7])],
)
def test_timesteps_are_used_as_given(schedule: Schedule, timesteps: list[float]) -> None:
    levels = grids.from_timesteps(schedule, timesteps)
    assert [level.timestep for level in levels] == [*timesteps, 0]
    assert grids.from_timesteps(schedule, np.array(timesteps)) == levels
    tensor: Any = torch.tensor(timesteps, dtype=torch.float64)
    assert grids.from_timesteps(schedule, tensor) == levels
    assert levels.on_training_timesteps()[:-1] == levels[:-1]


@pytest.mark.parametrize(
    ("schedule", "sigmas"), [(SCHEDULE, [80.0, 5.0, 0.1]), (VESchedule(), [80, 2, 0.002]), (FlowSchedule(), [1, 0.5])]
)
def test_sigmas_are_used_as_given(schedule: Schedule, sigmas: list[float]) -> None:
    levels = grids.from_sigmas(schedule, sigmas)
    assert [schedule.sigma_of(level) for level in levels] == pytest.approx([*sigmas, 0], rel=1e-15)
    assert grids.from_sigmas(schedule, [*sigmas, 0.0]) == levels


def test_a_list_decides_the_number_of_steps() -> None:
    assert Grid(sigmas=[80.0, 5.0, 0.0]).steps(50) == 2
    assert Grid(timesteps=[999, 1]).steps(50) == 2
    assert Grid().steps(50) == 50


def test_sigmas_may_be_printed_with_a_few_digits() -> None:
    low, high = SD.sigma_range
    printed = [float(f"{high:.4g}"), float(f"{low:.3g}")]
    assert [level.ratio for level in grids.from_sigmas(SD, printed)[:-1]] == pytest.approx(printed, rel=1e-15)
    assert grids.from_sigmas(ZERO_SNR, [math.inf, 1.0])[0].alpha == 0


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("schedule", ["vp", "ve", "flow"])
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "is empty"),
        ([0.1, 0.2], "strictly decreasing, but 0.2 follows 0.1"),
        ([0.5, 0.5], "strictly decreasing, but 0.5 follows 0.5"),
        ([math.nan], "nan is not a number"),
        ([0.7, math.nan, 0.1], "nan is not a number"),
        ([math.inf, 0.5], "inf is outside the model's training range"),
        ([0.5, -math.inf], "-inf is outside the model's training range"),
        ([1e9, 0.5], "outside the model's training range"),
        ([0.5, -99.0], "outside the model's training range"),
        (["0.5", "0.1"], "'0.5' is not a number"),
        ([0.5, None], "None is not a number"),
        ([True], "True is not a number"),
        ("999,500", "is not a list of numbers"),
        (500, "is not a list of numbers"),
    ],
)
def test_lists_that_cannot_be_used_as_given_are_refused(name: str, schedule: str, values: Any, reason: str) -> None:
    with pytest.raises(InputError, match=rf"grid\.{name}.*{reason}"):
        LISTS[name](SCHEDULES[schedule], values)


def test_the_clean_end_is_no_level_to_visit() -> None:
    with pytest.raises(InputError, match="0 is the clean end"):
        grids.from_timesteps(FlowSchedule(), [1000, 500, 0])
    assert grids.from_timesteps(SCHEDULE, [500, 0])[1].sigma > 0  # a training timestep like any other
    with pytest.raises(InputError, match="outside"):
        grids.from_sigmas(SCHEDULE, [0.0])


def test_timesteps_and_sigmas_exclude_each_other() -> None:
    with pytest.raises(InputError, match="not both"):
        Grid(timesteps=[1], sigmas=[1.0]).levels(Training(SCHEDULE), 1)


def test_the_default_grid_is_the_models_own() -> None:
    training = Training(SCHEDULE, spacing="leading", steps_offset=1)
    assert Grid().levels(training, 10)[0].timestep == 901
    assert Grid("leading", grids.leading).levels(training, 10)[0].timestep == 901
    assert Grid("leading", functools.partial(grids.leading, offset=5)).levels(training, 10)[0].timestep == 905
    assert Grid().levels(Training(SCHEDULE, spacing="trailing"), 10)[0].timestep == 999
    with pytest.raises(InputError, match="timestep_spacing=odd"):
        Grid().levels(Training(SCHEDULE, spacing="odd"), 10)


@pytest.mark.parametrize(("grid", "schedule"), PAIRS)
def test_solvers_of_every_sort_take_every_grid(grid: str, schedule: str) -> None:
    """A chain on training timesteps, a solver with noise at its levels, and one that ends where it began."""
    training = Training(SCHEDULES[schedule], Prediction.V)
    for scheduler in (ddpm, ddim, euler):
        for steps in (1, 2, 5):
            plan = build_sampler(scheduler, steps=steps, training=training, grid=Grid(grid, GRIDS[grid]))
            assert isinstance(plan, Plan)
            numbers = [c for row in plan.rows for c in (row.scale, *row.x, *row.m, *row.z)]
            assert plan.nfe == steps
            assert all(map(math.isfinite, numbers))
