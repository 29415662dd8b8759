"""Tables hold finite numbers: a class whose own numbers are not is no table."""

import inspect
import math
import sys
from typing import Any
from unittest import mock

import pytest
from diffusers import DDIMInverseScheduler, DEISMultistepScheduler, EDMDPMSolverMultistepScheduler
from torch import Tensor

import diffexp
from diffexp.plan.execute import execute
from diffexp.plan.table import Plan
from diffexp.plan.trace import NotLinear
from tests.parity.test_classes import network, seeded

NO_LENGTH = {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "sigma_min"}
"""The last step goes from sigma_min to sigma_min: 0 in float32, the root of -1e-9 in float64."""


def coefficients(plan: Plan) -> list[float]:
    rows = [[row.scale, *row.x, *row.m, *row.z, *(c for past in row.d for c in past)] for row in plan.rows]
    clamps = [[clamp.x, clamp.m] for row in plan.rows for clamp in row.clamps]
    return [plan.start_std, plan.start_scale, *plan.start_z, *(c for part in (*rows, *clamps) for c in part)]


def as_it_is(scheduler: Any, steps: int) -> Tensor:
    """The class's own loop, with its tables in float32 as it makes them."""
    scheduler.set_timesteps(steps)
    noise = seeded()
    x = noise() * float(scheduler.init_noise_sigma)
    with mock.patch.object(sys.modules[type(scheduler).__module__], "randn_tensor", create=True) as drawn:
        drawn.side_effect = lambda *_, **__: noise()
        for t in scheduler.timesteps:
            x = scheduler.step(network(scheduler.scale_model_input(x, t), float(t)), t, x).prev_sample
    return x


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 14])
@pytest.mark.parametrize("more", [{}, {"solver_order": 1}, {"solver_type": "heun"}])
def test_a_class_that_is_finite_has_a_finite_table(steps: int, more: dict[str, Any]) -> None:
    cls: Any = EDMDPMSolverMultistepScheduler
    theirs = as_it_is(cls(**NO_LENGTH, **more), steps)
    plan = diffexp.compile(cls(**NO_LENGTH, **more), steps=steps)
    noise = seeded()
    ours = execute(plan, lambda u, level: network(u, level.timestep), noise() * plan.start_std, noise)
    assert theirs.isfinite().all() and all(map(math.isfinite, coefficients(plan)))
    assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (DDIMInverseScheduler, {"prediction_type": "sample"}),  # starts without noise, which it divides by
        (DEISMultistepScheduler, {"use_flow_sigmas": True, "use_karras_sigmas": True}),  # starts without signal
    ],
)
def test_a_class_that_is_not_finite_is_no_table(cls: Any, options: dict[str, Any]) -> None:
    assert set(options) <= set(inspect.signature(cls.__init__).parameters)
    assert not as_it_is(cls(**options), 4).isfinite().all()
    with pytest.raises(NotLinear, match="its coefficients are not finite at evaluation"):
        diffexp.compile(cls(**options), steps=4)
