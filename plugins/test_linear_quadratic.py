"""The grid of Movie Gen: that of Mochi's pipeline, and what it is on other schedules."""

from functools import partial
from typing import Any

import pytest

from diffexp import FlowSchedule, InputError, VESchedule, VPSchedule, discover

SCHEDULES: list[Any] = [FlowSchedule(), VESchedule(), VPSchedule.from_betas()]


@pytest.fixture(scope="module")
def grid() -> partial:
    return discover().build("grid", {"name": "linear_quadratic"})


@pytest.mark.parametrize("threshold", [0.025, 0.2])
@pytest.mark.parametrize("steps", [2, 3, 10, 51])
def test_it_is_that_of_mochi(grid: partial, steps: int, threshold: float) -> None:
    mochi = pytest.importorskip("diffusers.pipelines.mochi.pipeline_mochi")
    theirs = mochi.linear_quadratic_schedule(steps, threshold)
    assert [level.sigma for level in grid(FlowSchedule(), steps, threshold=threshold)] == pytest.approx([*theirs, 0])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("threshold", [1e-6, 0.025, 0.5])
def test_it_falls_from_the_highest_sigma(grid: partial, schedule: Any, threshold: float) -> None:
    for steps in (1, 2, 3, 4, 101, 1000):
        levels = grid(schedule, steps, threshold=threshold)
        assert levels.steps == steps
        assert schedule.sigma_of(levels[0]) == pytest.approx(schedule.sigma_range[1])
        assert all(here.ratio > there.ratio for here, there in levels.pairs())


def test_options(grid: partial) -> None:
    for threshold in (0.0, 0.6, float("nan")):
        with pytest.raises(InputError, match="threshold"):
            grid(FlowSchedule(), 5, threshold=threshold)
    with pytest.raises(InputError, match="sigma_max"):
        grid(VPSchedule.from_betas(rescale_betas_zero_snr=True), 5)
    assert grid(VESchedule(), 5, sigma_max=10.0)[0].sigma == 10
