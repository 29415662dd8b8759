"""Exact output distributions against sampling and against the exact solution."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffexp
from diffexp.errors import InputError
from diffexp.levels import Level
from diffexp.models.base import Request, Runtime
from diffexp.models.gaussian import gaussian
from diffexp.plan import TrainingSpec, execute
from diffexp.plan.analysis import gaussian_output
from diffexp.predictions import Clip, Prediction
from diffexp.schedules import VPSchedule

MEAN, VARIANCES = (
    torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64),
    torch.tensor([1.0, 0.3, 0.01], dtype=torch.float64),
)


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
    plan = diffexp.compile("ddim", steps=3, model=TrainingSpec(VPSchedule.from_betas(), clip=Clip()))
    with pytest.raises(InputError, match="clips"):
        gaussian_output(plan, MEAN, VARIANCES)
