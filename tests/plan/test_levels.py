"""Schedules: the numbers a model was trained with, and levels between them."""

import math
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from diffexp.errors import InputError
from diffexp.plan.levels import CLEAN, Level
from diffexp.plan.schedules import VPSchedule

# Typed loosely, because tests hand over options as dictionaries.
DDIMScheduler: Any = diffusers.DDIMScheduler
DDPMScheduler: Any = diffusers.DDPMScheduler

LINEAR = VPSchedule.from_betas()


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid"])
@pytest.mark.parametrize("count", [10, 1000])
def test_tables_are_those_of_diffusers_bit_for_bit(name: str, count: int) -> None:
    theirs = DDPMScheduler(beta_schedule=name, num_train_timesteps=count, beta_start=1e-3, beta_end=0.03)
    ours = VPSchedule.from_betas(beta_schedule=name, num_train_timesteps=count, beta_start=1e-3, beta_end=0.03)
    assert torch.equal(torch.tensor(ours.alphas_cumprod, dtype=torch.float32), theirs.alphas_cumprod)


def test_zero_terminal_snr_is_that_of_diffusers() -> None:
    theirs = DDIMScheduler(beta_schedule="scaled_linear", rescale_betas_zero_snr=True)
    ours = VPSchedule.from_betas(beta_schedule="scaled_linear", rescale_betas_zero_snr=True)
    assert torch.equal(torch.tensor(ours.alphas_cumprod, dtype=torch.float32), theirs.alphas_cumprod)
    last = ours.at(999)
    assert (last.alpha, last.sigma, last.ratio, last.log_snr) == (0.0, 1.0, math.inf, -math.inf)


def test_trained_betas_and_the_final_level() -> None:
    schedule = VPSchedule.from_betas(trained_betas=[0.1, 0.2], set_alpha_to_one=False)
    assert schedule.num_train_timesteps == 2
    assert schedule.final == schedule.at(0)
    assert schedule.at(1).alpha ** 2 == pytest.approx(0.9 * 0.8)
    assert LINEAR.final == CLEAN


def test_an_unknown_beta_schedule_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="beta_schedule=cosine .*squaredcos_cap_v2"):
        VPSchedule.from_betas(beta_schedule="cosine")


@given(st.floats(0, 999))
def test_levels_preserve_variance(timestep: float) -> None:
    level = LINEAR.at(timestep)
    assert level.timestep == timestep
    assert level.alpha**2 + level.sigma**2 == pytest.approx(1, abs=1e-14)


@given(st.floats(1e-2, 150))
def test_a_ratio_is_met_exactly_at_a_timestep_near_its_own(ratio: float) -> None:
    level = LINEAR.at_ratio(ratio)
    assert level.ratio == pytest.approx(ratio, rel=1e-12)
    assert LINEAR.at(level.timestep).ratio == pytest.approx(ratio, rel=1e-2)


def test_fractional_timesteps_interpolate_like_numpy() -> None:
    timesteps = np.linspace(0, 999, 37)
    expected = np.interp(timesteps, np.arange(1000), LINEAR.ratios)
    assert [LINEAR.at(t).ratio for t in timesteps] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("timestep", [-1, 1000, 999.5])
def test_timesteps_outside_training_are_refused(timestep: float) -> None:
    with pytest.raises(InputError, match=r"outside the training range 0\.\.999"):
        LINEAR.at(timestep)


def test_clean_level_has_no_noise() -> None:
    assert CLEAN.ratio == 0 and CLEAN.log_snr == math.inf
    assert Level(1.0, 0.6, 0.8).ratio == pytest.approx(4 / 3)
