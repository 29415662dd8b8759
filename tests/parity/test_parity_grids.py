"""Our grids against the levels that diffusers' classes visit under the same names."""

import math
from typing import Any

import diffusers
import numpy as np
import pytest

from diffexp.components import grids
from diffexp.components.grids.choice import MakeLevels
from diffexp.plan.levels import Levels, Schedule
from diffexp.plan.schedules import FlowSchedule, VESchedule
from tests.parity.common import BETAS, difference, training_of

# Typed loosely, because tests hand over options as dictionaries.
EulerDiscreteScheduler: Any = diffusers.EulerDiscreteScheduler
FlowMatchEulerDiscreteScheduler: Any = diffusers.FlowMatchEulerDiscreteScheduler
EDMEulerScheduler: Any = diffusers.EDMEulerScheduler

SINGLE = 2e-6
"""diffusers' sigmas are float32, relative."""
NAMES = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}
STEPS = (2, 3, 10, 33)


def assert_same_levels(ours: Levels, theirs: Any, timesteps: float = 2e-3) -> None:
    schedule: Schedule = ours.schedule
    assert [schedule.sigma_of(level) for level in ours] == pytest.approx(theirs.sigmas.tolist(), rel=SINGLE, abs=1e-9)
    assert [level.timestep for level in ours[:-1]] == pytest.approx(theirs.timesteps.tolist(), abs=timesteps)


@pytest.mark.parametrize("grid", NAMES)
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("steps", STEPS)
def test_sigma_grids_on_vp_models(grid: str, betas: str, steps: int) -> None:
    theirs = EulerDiscreteScheduler(**BETAS[betas], **{NAMES[grid]: True})
    schedule = training_of(theirs).schedule
    theirs.set_timesteps(steps)
    make: MakeLevels = getattr(grids, grid)
    # diffusers reads the timesteps off a table in float32, coarse where neighbouring sigmas are all but equal.
    assert_same_levels(make(schedule, steps), theirs, timesteps=0.02)


@pytest.mark.parametrize("grid", NAMES)
def test_tables_on_sigma_grids(grid: str) -> None:
    theirs = EulerDiscreteScheduler(beta_start=1e-4, beta_end=0.02, **{NAMES[grid]: True})
    assert difference("euler", theirs, 12, grid) < 5e-6


@pytest.mark.parametrize("steps", [2, 10])
def test_the_range_of_diffusers_depends_on_its_spacing(steps: int) -> None:
    """With ``leading``, its Karras grid starts at that grid's first timestep and never sees full noise; ours does."""
    theirs = EulerDiscreteScheduler(timestep_spacing="leading", use_karras_sigmas=True)
    theirs.set_timesteps(steps)
    schedule = training_of(theirs).schedule
    low, high = (schedule.at(t).ratio for t in (0, 1000 - 1000 // steps))
    assert_same_levels(grids.karras(schedule, steps, sigma_min=low, sigma_max=high), theirs)
    assert high < 0.7 * grids.karras(schedule, steps)[0].ratio
    # DPMSolverMultistepScheduler, with the same options, takes the whole range.
    other: Any = diffusers.DPMSolverMultistepScheduler(timestep_spacing="leading", use_karras_sigmas=True)
    other.set_timesteps(steps)
    assert other.sigmas[0].item() == pytest.approx(grids.karras(schedule, steps)[0].ratio, rel=SINGLE)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("grid", ["karras", "exponential"])
def test_grids_of_edm(grid: str, steps: int) -> None:
    theirs = EDMEulerScheduler(sigma_schedule=grid)
    theirs.set_timesteps(steps)
    assert_same_levels(getattr(grids, grid)(VESchedule(sigma_data=0.5), steps), theirs, timesteps=1e-6)


@pytest.mark.parametrize("steps", [1, *STEPS])
@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_flow(steps: int, shift: float) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(steps)
    assert_same_levels(grids.flow(FlowSchedule(shift=shift), steps), theirs)
    assert grids.flow(FlowSchedule(), steps, shift=shift).points == grids.flow(FlowSchedule(shift=shift), steps).points


@pytest.mark.parametrize("steps", [1, 7, 28])
@pytest.mark.parametrize("mu", [0.5, 1.15])
def test_dynamic_shifting_as_in_the_pipelines_of_flux(steps: int, mu: float) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps).tolist(), mu=mu)
    assert_same_levels(grids.trailing(FlowSchedule(shift=math.exp(mu)), steps), theirs)


def test_a_terminal_sigma() -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0, shift_terminal=0.1)
    theirs.set_timesteps(9)
    assert_same_levels(grids.flow(FlowSchedule(shift=3.0), 9, terminal=0.1), theirs)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("grid", NAMES)
def test_sigma_grids_on_flow_models(grid: str, steps: int) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(**{NAMES[grid]: True})
    theirs.set_timesteps(steps)
    assert_same_levels(getattr(grids, grid)(FlowSchedule(), steps), theirs)
