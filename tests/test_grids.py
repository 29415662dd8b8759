"""Grids: equal names mean diffusers' levels; lists are used as given or refused."""

import functools
from typing import Any

import diffusers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffexp import grids
from diffexp.errors import InputError
from diffexp.levels import CLEAN
from diffexp.plan import Grid, TrainingSpec
from diffexp.plan.bind import MakeLevels
from diffexp.schedules import VPSchedule

# Typed loosely, because tests hand over options as dictionaries.
DDIMScheduler: Any = diffusers.DDIMScheduler
EulerDiscreteScheduler: Any = diffusers.EulerDiscreteScheduler

SCHEDULE = VPSchedule.from_betas()
ALL = [grids.linspace, grids.leading, grids.trailing, grids.karras, grids.exponential]
STEPS = st.integers(1, 1000)


@pytest.mark.parametrize("name", ["linspace", "leading", "trailing"])
@given(steps=STEPS)
def test_uniform_grids_have_the_timesteps_of_diffusers(name: str, steps: int) -> None:
    theirs = DDIMScheduler(timestep_spacing=name)
    theirs.set_timesteps(steps)
    ours = getattr(grids, name)(SCHEDULE, steps).on_training_timesteps()
    # At 227 steps (and a few other counts) diffusers' trailing grid has one timestep too many, a -1: a rounding fault.
    assert [level.timestep for level in ours[:-1]] == theirs.timesteps.tolist()[:steps]


def test_leading_with_an_offset() -> None:
    theirs = DDIMScheduler(timestep_spacing="leading", steps_offset=1)
    theirs.set_timesteps(7)
    ours = grids.leading(SCHEDULE, 7, offset=1)
    assert [level.timestep for level in ours[:-1]] == theirs.timesteps.tolist()


@pytest.mark.parametrize(
    ("grid", "option"), [(grids.karras, "use_karras_sigmas"), (grids.exponential, "use_exponential_sigmas")]
)
@pytest.mark.parametrize("steps", [2, 10, 33])
def test_sigma_grids_have_the_sigmas_of_diffusers(grid: MakeLevels, option: str, steps: int) -> None:
    theirs = EulerDiscreteScheduler(beta_start=1e-4, beta_end=0.02, **{option: True})
    theirs.set_timesteps(steps)
    ours = grid(SCHEDULE, steps)
    assert [level.ratio for level in ours] == pytest.approx(theirs.sigmas.tolist(), rel=1e-6)
    assert [level.timestep for level in ours[:-1]] == pytest.approx(theirs.timesteps.tolist(), abs=1e-3)


@pytest.mark.parametrize("grid", ALL)
@given(steps=STEPS)
def test_every_grid_descends_to_the_clean_end(grid: MakeLevels, steps: int) -> None:
    levels = grid(SCHEDULE, steps)
    assert levels.steps == steps and len(levels) == steps + 1
    assert levels[-1] == CLEAN
    assert all(here.ratio > there.ratio for here, there in levels.pairs())


@pytest.mark.parametrize("grid", ALL)
@pytest.mark.parametrize(
    ("steps", "message"), [(0, "at least 1"), (-3, "at least 1"), (1001, "more than the 1000 timesteps")]
)
def test_impossible_numbers_of_steps(grid: MakeLevels, steps: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        grid(SCHEDULE, steps)


def test_lists_are_used_as_given() -> None:
    by_timestep = grids.from_timesteps(SCHEDULE, [900, 333.5, 10])
    assert [level.timestep for level in by_timestep] == [900, 333.5, 10, 0]
    by_sigma = grids.from_sigmas(SCHEDULE, [80.0, 5.0, 0.1, 0.0])
    assert [level.ratio for level in by_sigma] == pytest.approx([80.0, 5.0, 0.1, 0.0])
    assert Grid(sigmas=[80.0, 5.0, 0.0]).steps(50) == 2
    assert Grid(timesteps=[999, 1]).steps(50) == 2
    assert Grid().steps(50) == 50


@pytest.mark.parametrize("values", [[], [1, 2], [5, 5]])
def test_lists_that_do_not_descend_are_refused(values: list[float]) -> None:
    with pytest.raises(InputError, match=r"grid\.timesteps"):
        grids.from_timesteps(SCHEDULE, values)
    with pytest.raises(InputError, match=r"grid\.sigmas"):
        grids.from_sigmas(SCHEDULE, [float(v) for v in values])


def test_lists_outside_the_training_range_are_refused() -> None:
    with pytest.raises(InputError, match="outside the training range"):
        grids.from_timesteps(SCHEDULE, [1000])
    with pytest.raises(InputError, match="outside the model's training range"):
        grids.from_sigmas(SCHEDULE, [1000.0, 1.0])
    with pytest.raises(InputError, match="not both"):
        Grid(timesteps=[1], sigmas=[1.0]).levels(TrainingSpec(SCHEDULE), 1)


def test_options_of_karras_are_checked() -> None:
    with pytest.raises(InputError, match="rho"):
        grids.karras(SCHEDULE, 5, rho=0.0)
    with pytest.raises(InputError, match="sigma_min < sigma_max"):
        grids.karras(SCHEDULE, 5, sigma_min=3.0, sigma_max=2.0)
    with pytest.raises(InputError, match="sigma_max"):
        grids.karras(VPSchedule.from_betas(rescale_betas_zero_snr=True), 5)


def test_the_default_grid_is_the_models_own() -> None:
    spec = TrainingSpec(SCHEDULE, spacing="leading", steps_offset=1)
    assert Grid().levels(spec, 10)[0].timestep == 901
    assert Grid("leading", grids.leading).levels(spec, 10)[0].timestep == 901
    assert Grid("leading", functools.partial(grids.leading, offset=5)).levels(spec, 10)[0].timestep == 905
    assert Grid().levels(TrainingSpec(SCHEDULE, spacing="trailing"), 10)[0].timestep == 999
    with pytest.raises(InputError, match="timestep_spacing=odd"):
        Grid().levels(TrainingSpec(SCHEDULE, spacing="odd"), 10)
