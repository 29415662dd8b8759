"""The solvers that step in sigma against diffusers, and against the papers' algorithms in k-diffusion's convention."""

import itertools
import math
from typing import Any

import diffusers
import pytest
import torch

from diffexp.components.schedulers.dpm2 import dpm2
from diffexp.components.schedulers.dpm2_ancestral import dpm2_ancestral
from diffexp.components.schedulers.edm_stochastic import edm_stochastic
from diffexp.components.schedulers.euler_ancestral import euler_ancestral
from diffexp.components.schedulers.restart import restart
from diffexp.plan.moments import gaussian_output
from diffexp.plan.predictions import Prediction
from diffexp.plan.schedules import VESchedule, VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training
from tests.parity.common import (
    BETAS,
    EXACT,
    PREDICTIONS,
    SINGLE,
    SPACINGS,
    compiled,
    difference,
    training_of,
    unrolled_difference,
)

# Typed loosely, because tests hand over options as dictionaries.
TWINS: dict[str, Any] = {
    "heun": diffusers.HeunDiscreteScheduler,
    "dpm2": diffusers.KDPM2DiscreteScheduler,
    "lms": diffusers.LMSDiscreteScheduler,
    "euler_ancestral": diffusers.EulerAncestralDiscreteScheduler,
    "dpm2_ancestral": diffusers.KDPM2AncestralDiscreteScheduler,
}
OURS: dict[str, Any] = {"dpm2": dpm2, "euler_ancestral": euler_ancestral, "dpm2_ancestral": dpm2_ancestral}
WITHOUT_SAMPLE_PREDICTION = ("dpm2", "euler_ancestral", "dpm2_ancestral")
TOLERANCE = {"lms": 5e-6, "dpm2_ancestral": 5e-5}
"""Where differences of float32 sigmas make more of their rounding: in divisors, and in sigma_down."""


def twin(name: str, betas: str, prediction: str, spacing: str) -> Any:
    return TWINS[name](**BETAS[betas], prediction_type=prediction, timestep_spacing=spacing)


@pytest.mark.parametrize("name", TWINS)
def test_tables_equal_those_of_diffusers(name: str) -> None:
    """All predictions on all uniform grids."""
    for (prediction, spacing), steps in zip(itertools.product(PREDICTIONS, SPACINGS), itertools.cycle((5, 12))):
        if prediction != "sample" or name not in WITHOUT_SAMPLE_PREDICTION:
            theirs = twin(name, "few", prediction, spacing)
            assert difference(name, theirs, steps, spacing) < TOLERANCE.get(name, SINGLE), (prediction, spacing, steps)


PAIRS = set(itertools.product(TWINS, ("linear", "scaled_linear", "cosine", "trained")))
THEIRS_IS_NAN = ("dpm2_ancestral", "cosine")
"""Held to that by a test below."""


@pytest.mark.parametrize(("name", "betas"), sorted(PAIRS - {THEIRS_IS_NAN}))
def test_tables_equal_on_all_schedules(name: str, betas: str) -> None:
    theirs = twin(name, betas, "v_prediction", "linspace")
    assert difference(name, theirs, 11, "linspace") < TOLERANCE.get(name, SINGLE)


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(("steps", "spacing"), [(1, "linspace"), (1, "leading"), (2, "leading"), (3, "trailing")])
def test_few_steps_equal_those_of_diffusers(name: str, steps: int, spacing: str) -> None:
    theirs = twin(name, "scaled_linear", "v_prediction", spacing)
    assert difference(name, theirs, steps, spacing) < TOLERANCE.get(name, SINGLE)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_multistep_orders_equal_those_of_diffusers(order: int) -> None:
    """diffusers integrates its polynomials with quadrature; ours are integrated exactly."""
    theirs = twin("lms", "few", "epsilon", "linspace")
    assert difference("lms", theirs, 9, "linspace", {"order": order}, order=order) < TOLERANCE["lms"]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_clipped_estimates(prediction: str) -> None:
    theirs = TWINS["heun"](clip_sample=True, clip_sample_range=0.8, prediction_type=prediction)
    assert difference("heun", theirs, 9, "linspace") < SINGLE


@pytest.mark.parametrize(
    ("name", "grid"),
    [("heun", "karras"), ("lms", "karras"), ("heun", "exponential"), ("dpm2", "exponential"), ("lms", "exponential")],
)
def test_sigma_grids(name: str, grid: str) -> None:
    """KDPM2 with karras sigmas rounds its timesteps, see below."""
    theirs = TWINS[name](**BETAS["scaled_linear"], **{f"use_{grid}_sigmas": True})
    assert difference(name, theirs, 12, grid) < 5e-6


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_heun_in_the_time_of_the_flow(shift: float, steps: int) -> None:
    theirs: Any = diffusers.FlowMatchHeunDiscreteScheduler(shift=shift)  # pyright: ignore[reportArgumentType]
    assert difference("heun", theirs, steps, "flow") < SINGLE


# The papers' algorithms in k-diffusion's convention: x = x0 + sigma * eps, model(x, sigma) is the x0 estimate


def sample_edm(model, x, sigmas, s_churn=0.0, s_tmin=0.0, s_tmax=math.inf, s_noise=1.0, *, noise_sampler):
    """Karras et al. 2022, algorithm 2."""
    steps = len(sigmas) - 1
    for i in range(steps):
        gamma = min(s_churn / steps, math.sqrt(2) - 1) if s_tmin <= sigmas[i] <= s_tmax else 0.0
        t_hat = sigmas[i] + gamma * sigmas[i]
        if gamma > 0:
            x = x + (t_hat**2 - sigmas[i] ** 2).sqrt() * s_noise * noise_sampler(None, None)
        d = (x - model(x, t_hat)) / t_hat
        x_next = x + (sigmas[i + 1] - t_hat) * d
        if sigmas[i + 1] != 0:
            d_prime = (x_next - model(x_next, sigmas[i + 1])) / sigmas[i + 1]
            x_next = x + (sigmas[i + 1] - t_hat) * (d / 2 + d_prime / 2)
        x = x_next
    return x


def up_and_down(here, there, eta):
    up = min(there, eta * (there**2 * (here**2 - there**2) / here**2).sqrt())
    return up, (there**2 - up**2).sqrt()


def sample_euler_a(model, x, sigmas, eta=1.0, *, noise_sampler):
    for here, there in itertools.pairwise(sigmas):
        up, down = up_and_down(here, there, eta)
        x = x + (x - model(x, here)) / here * (down - here)
        if there > 0:
            x = x + noise_sampler(None, None) * up
    return x


def sample_dpm2_a(model, x, sigmas, eta=1.0, *, noise_sampler):
    for here, there in itertools.pairwise(sigmas):
        up, down = up_and_down(here, there, eta)
        d = (x - model(x, here)) / here
        if down == 0:
            x = x + d * (down - here)
        else:
            middle = (here.log() / 2 + down.log() / 2).exp()
            halfway = x + d * (middle - here)
            x = x + (halfway - model(halfway, middle)) / middle * (down - here)
            x = x + noise_sampler(None, None) * up
    return x


def sample_restart(model, x, sigmas, count=3, repetitions=2, t_min=0.06, t_max=0.3, *, noise_sampler):
    """Xu et al. 2023, algorithm 2, with one interval and the spacing of Karras et al. 2022, eq. 5."""
    nearest = int((sigmas - t_min).abs().argmin())
    x = sample_edm(model, x, sigmas[: nearest + 1], noise_sampler=noise_sampler)
    ramp = torch.linspace(t_max ** (1 / 7), float(sigmas[nearest]) ** (1 / 7), count, dtype=torch.float64) ** 7
    for _ in range(repetitions):
        x = x + (t_max**2 - sigmas[nearest] ** 2).sqrt() * noise_sampler(None, None)
        x = sample_edm(model, x, ramp, noise_sampler=noise_sampler)
    return sample_edm(model, x, sigmas[nearest:], noise_sampler=noise_sampler)


TRAININGS = {
    "vp": Training(VPSchedule.from_betas(), Prediction.V),
    "epsilon": Training(VPSchedule.from_betas(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)),
    "ve": Training(VESchedule()),
}


@pytest.mark.parametrize("kind", TRAININGS)
@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (edm_stochastic, sample_edm, {"s_churn": 0.0}),
        (edm_stochastic, sample_edm, {"s_churn": 4.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}),
        (edm_stochastic, sample_edm, {"s_churn": 40.0, "s_tmin": 0.3, "s_tmax": 5.0}),
        (euler_ancestral, sample_euler_a, {}),
        (euler_ancestral, sample_euler_a, {"eta": 0.4}),
        (dpm2_ancestral, sample_dpm2_a, {}),
        (dpm2_ancestral, sample_dpm2_a, {"eta": 0.4}),
    ],
)
@pytest.mark.parametrize("steps", [1, 5, 13])
def test_samplers_of_k_diffusion_give_equal_tables(
    kind: str, ours: Any, theirs: Any, options: dict[str, Any], steps: int
) -> None:
    plans = (compiled(scheduler, steps, TRAININGS[kind], "karras", **options) for scheduler in (ours, theirs))
    assert unrolled_difference(*plans) < EXACT


@pytest.mark.parametrize("kind", TRAININGS)
def test_restart_does_what_its_paper_says(kind: str) -> None:
    given = {"count": 4, "repetitions": 3, "t_min": 0.1, "t_max": 2.0}
    plan = compiled(restart, 10, TRAININGS[kind], "karras", intervals=[list(given.values())])
    assert unrolled_difference(plan, compiled(sample_restart, 10, TRAININGS[kind], "karras", **given)) < EXACT


# Where the two differ, and which of them is right


def sigma_told(row: Any, training: Training) -> float:
    """Log of the timestep's sigma over the sample's, which is in scale = 1 / sqrt(sigma^2 + 1)."""
    return math.log(training.schedule.at(row.level.timestep).ratio / math.sqrt(1 / row.scale**2 - 1))


@pytest.mark.parametrize("name", ["dpm2", "dpm2_ancestral"])
def test_diffusers_rounds_the_timesteps_of_its_karras_grid(name: str) -> None:
    """KDPM2 and KDPM2Ancestral, but not Heun: the network is told of 4 % more or less noise than there is."""
    told = {}
    for twin in (name, "heun"):
        theirs = TWINS[twin](**BETAS["scaled_linear"], use_karras_sigmas=True)
        told[twin] = max(
            abs(sigma_told(row, training_of(theirs))) for row in compiled(theirs, 20, training_of(theirs)).rows
        )
    assert told[name] > 0.04 and told["heun"] < 0.01
    training = training_of(TWINS[name](**BETAS["scaled_linear"]))
    for row in compiled(OURS[name], 20, training, "karras").rows:
        assert training.schedule.at(row.level.timestep).ratio == pytest.approx(row.level.ratio, rel=0.02)


def law(plan: Plan, prediction: Any) -> float:
    """Standard deviation of the output on standard normal data; 1 is right."""
    data = torch.zeros(1), torch.ones(1, dtype=torch.float64)
    return gaussian_output(plan, *data, prediction)[1].sqrt().item()


@pytest.mark.parametrize(
    ("name", "betas", "steps", "spacing"),
    [
        ("dpm2_ancestral", "linear", 2, "linspace"),
        ("dpm2_ancestral", "cosine", 10, "linspace"),
        ("dpm2_ancestral", "cosine", 7, "trailing"),
        ("euler_ancestral", "cosine", 3, "trailing"),
    ],
)
def test_diffusers_loses_ancestral_steps_to_float32(name: str, betas: str, steps: int, spacing: str) -> None:
    """sigma_down^2 = sigma_next^2 - sigma_up^2 comes out below 0 where a step is long: the sample is NaN."""
    theirs = TWINS[name](**BETAS[betas], timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    x = theirs.init_noise_sigma * torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    for t in theirs.timesteps:
        x = theirs.step(torch.zeros_like(theirs.scale_model_input(x, t)), t, x).prev_sample
    assert not x.isfinite().any()
    ours = compiled(
        {"dpm2_ancestral": dpm2_ancestral, "euler_ancestral": euler_ancestral}[name], steps, training_of(theirs)
    )
    assert math.isfinite(law(ours, Prediction.EPSILON))


def test_diffusers_churns_a_flow_out_of_its_levels() -> None:
    """FlowMatchHeun adds noise but takes no signal away; ours goes up to a level of the flow, and converges."""
    theirs: Any = diffusers.FlowMatchHeunDiscreteScheduler()
    training = training_of(theirs)
    churned = [law(compiled(theirs, steps, training, s_churn=5.0), Prediction.FLOW) for steps in (20, 80)]
    assert min(churned) > 1.5
    ours = [law(compiled(edm_stochastic, steps, training, s_churn=5.0), Prediction.FLOW) for steps in (20, 80)]
    assert abs(ours[1] - 1) < abs(ours[0] - 1) / 8 and abs(ours[0] - 1) < 0.01


def test_zero_terminal_snr_is_approximated_by_diffusers() -> None:
    """EulerAncestral starts at sigma = 4096 instead of infinity, and keeps a little of its start for that."""
    config = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    theirs = TWINS["euler_ancestral"](**config)
    plan = compiled(euler_ancestral, 10, training_of(theirs), "trailing")
    assert (plan.rows[0].level.alpha, plan.start_std) == (0, 1)
    # What a step leaves of x: sigma_down = sigma_next^2 / sigma
    assert (
        SINGLE
        < unrolled_difference(plan, compiled(theirs, 10, training_of(theirs)))
        < plan.rows[1].level.ratio ** 2 / 4096
    )
