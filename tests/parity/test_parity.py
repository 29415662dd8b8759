"""Our tables against diffusers' classes: no model, no images, coefficient by coefficient."""

import itertools
from typing import Any

import diffusers
import pytest
from hypothesis import given, settings, strategies as st

import diffexp
from tests.parity.common import BETAS, EXACT, PREDICTIONS, SINGLE, SPACINGS, difference, training_of

# Typed loosely, because tests hand over options as dictionaries.
DDIMScheduler: Any = diffusers.DDIMScheduler
DDPMScheduler: Any = diffusers.DDPMScheduler
EulerDiscreteScheduler: Any = diffusers.EulerDiscreteScheduler

COMBINATIONS = list(itertools.product(BETAS, PREDICTIONS, SPACINGS))


@pytest.mark.parametrize(("betas", "prediction", "spacing"), COMBINATIONS)
def test_tables_equal_those_of_diffusers(betas: str, prediction: str, spacing: str) -> None:
    config: dict[str, Any] = {**BETAS[betas], "prediction_type": prediction, "timestep_spacing": spacing}
    for steps, clip, variance, eta in (
        (1, True, "fixed_small", 0.0),
        (7, False, "fixed_large", 0.6),
        (20, True, "fixed_small", 0.0),
    ):
        theirs = DDPMScheduler(**config, clip_sample=clip, clip_sample_range=0.8, variance_type=variance)
        assert difference("ddpm", theirs, steps, spacing, variance=variance) < EXACT
        theirs = DDIMScheduler(**config, clip_sample=clip, clip_sample_range=1.3)
        assert difference("ddim", theirs, steps, spacing, {"eta": eta}, eta=eta) < EXACT
    assert difference("euler", EulerDiscreteScheduler(**config), 7, spacing) < SINGLE


@settings(max_examples=25)
@given(
    steps=st.integers(1, 60),
    end=st.floats(0.005, 0.05),
    prediction=st.sampled_from(PREDICTIONS),
    spacing=st.sampled_from(SPACINGS),
    clip=st.booleans(),
    offset=st.integers(0, 1),
    to_one=st.booleans(),
    eta=st.floats(0.01, 1),
)
def test_tables_equal_on_any_options(
    steps: int, end: float, prediction: str, spacing: str, clip: bool, offset: int, to_one: bool, eta: float
) -> None:
    config: dict[str, Any] = {
        "beta_end": end,
        "prediction_type": prediction,
        "timestep_spacing": spacing,
        "steps_offset": offset if steps > 1 else 0,  # diffusers indexes past its own table at one step with an offset
    }
    stride = 1000 // steps
    if spacing == "trailing" and len(_timesteps(DDIMScheduler(**config), steps)) != steps:
        return  # diffusers' own rounding fault: one timestep too many
    assert stride >= 1
    assert difference("ddpm", DDPMScheduler(**config, clip_sample=clip), steps, spacing) < EXACT
    ddim = DDIMScheduler(**config, clip_sample=clip, set_alpha_to_one=to_one)
    assert difference("ddim", ddim, steps, spacing, {"eta": eta}, eta=eta) < EXACT
    if steps > 1:
        assert difference("euler", EulerDiscreteScheduler(**config), steps, spacing) < SINGLE


def _timesteps(scheduler: Any, steps: int) -> list[int]:
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.tolist()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_noise_of_the_clipped_estimate(prediction: str) -> None:
    theirs = DDIMScheduler(prediction_type=prediction, clip_sample=True)
    options = {"eta": 0.3, "use_clipped_model_output": True}
    assert difference("ddim", theirs, 9, "leading", options, **options) < EXACT


def test_zero_terminal_snr() -> None:
    config: dict[str, Any] = {
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    }
    assert difference("ddim", DDIMScheduler(**config, clip_sample=False), 10, "trailing") < EXACT


def test_explicit_timesteps() -> None:
    chosen = [901, 640, 333, 20]
    theirs = DDPMScheduler()
    training = training_of(theirs)
    ours = diffexp.compile("ddpm", steps=4, model=training, timesteps=chosen)
    assert ours.difference(diffexp.compile(DDPMScheduler, steps=4, model=training, timesteps=chosen)) < EXACT


@pytest.mark.parametrize("grid", ["karras", "exponential"])
def test_sigma_grids(grid: str) -> None:
    training = training_of(EulerDiscreteScheduler(beta_start=1e-4, beta_end=0.02))
    ours = diffexp.compile("euler", steps=12, model=training, grid=grid)
    assert ours.difference(diffexp.compile(EulerDiscreteScheduler, steps=12, model=training, grid=grid)) < 5e-6


CLASSES = """DDIMScheduler DDPMScheduler EulerDiscreteScheduler EulerAncestralDiscreteScheduler HeunDiscreteScheduler
    KDPM2DiscreteScheduler KDPM2AncestralDiscreteScheduler DPMSolverMultistepScheduler DPMSolverSinglestepScheduler
    UniPCMultistepScheduler DEISMultistepScheduler LMSDiscreteScheduler IPNDMScheduler SASolverScheduler LCMScheduler
    TCDScheduler EDMEulerScheduler EDMDPMSolverMultistepScheduler""".split()


@pytest.mark.parametrize("name", CLASSES)
def test_classes_of_diffusers_compile(name: str) -> None:
    """``compile`` checks every table against the class itself on random inputs, so compiling is the assertion."""
    plan = diffexp.compile(getattr(diffusers, name), steps=9)
    assert plan.nfe >= 9
