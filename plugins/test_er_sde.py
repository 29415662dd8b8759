"""ER-SDE: what it is with its terms turned off, its weak order, and its limits."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import diffexp
from diffexp import FlowSchedule, Plan, Prediction, Training, VESchedule, VPSchedule, gaussian_output

VARIANCES = torch.logspace(0, -2, 10, dtype=torch.float64)


def spread(steps: int, **options: Any) -> Tensor:
    """Exact standard deviations of the output on Gaussian data, from sigma = 10 to 0.05."""
    sigmas = [10 * (0.05 / 10) ** (k / steps) for k in range(steps + 1)]
    plan = diffexp.compile("er_sde", steps=0, sigmas=sigmas, **options)
    return gaussian_output(plan, torch.zeros(10), VARIANCES)[1].sqrt()


def coefficients(plan: Plan) -> list[tuple[float, ...]]:
    return [(*row.x, *row.m, *row.z) for row in plan.rows]


def test_one_stage_without_noise_is_ddim() -> None:
    plan = diffexp.compile("er_sde", steps=8, max_stage=1, noise_scale="ode")
    assert plan.deterministic
    assert plan.difference(diffexp.compile("euler", steps=8)) < 1e-14


def test_one_stage_with_the_noise_of_the_sde_is_ddim_at_eta_1() -> None:
    plan = diffexp.compile("er_sde", steps=8, max_stage=1, noise_scale="sde", grid="karras")
    other = diffexp.compile("ddim", steps=8, eta=1.0, grid="karras")
    for ours, theirs in zip(coefficients(plan)[:-1], coefficients(other)[:-1]):
        assert ours == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("noise_scale", ["ode", "er", "sde"])
def test_weak_order(noise_scale: str) -> None:
    reference = spread(400, noise_scale=noise_scale)

    def error(stage: int, steps: int) -> float:
        return (spread(steps, max_stage=stage, noise_scale=noise_scale) - reference).norm().item()

    errors = {stage: (error(stage, 20), error(stage, 40)) for stage in (1, 2, 3)}
    orders = {stage: math.log2(coarse / fine) for stage, (coarse, fine) in errors.items()}
    assert 0.85 < orders[1] < 1.1
    assert orders[2] > 1.95
    assert orders[3] > 1.95
    assert errors[3][1] < errors[2][1] < errors[1][1]


@pytest.mark.parametrize("schedule", [VPSchedule.from_betas(rescale_betas_zero_snr=True), VESchedule(), FlowSchedule()])
@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_every_schedule_and_few_steps(schedule: Any, steps: int) -> None:
    """Two of these begin without any signal (sigma / alpha is infinite), and all of them end clean."""
    plan = diffexp.compile("er_sde", steps=steps, model=Training(schedule, Prediction.V), grid="cosine")
    assert all(math.isfinite(number) for row in coefficients(plan) for number in row)
    assert plan.nfe == steps
    assert plan.depth <= 2
    _, variances = gaussian_output(plan, torch.zeros(1), torch.zeros(1), Prediction.V)
    assert variances.item() < 1e-20  # data of one point comes out exactly
