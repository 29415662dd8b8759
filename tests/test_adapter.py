"""A plan inside a diffusers pipeline."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, EulerDiscreteScheduler, UNet2DModel

import diffexp
from diffexp.plan import Plan, TrainingSpec
from diffexp.plan.adapter import PlanScheduler
from diffexp.predictions import Clip
from diffexp.schedules import VPSchedule

SPEC = TrainingSpec(VPSchedule.from_betas(), clip=Clip())


def adapted(name: str, **options: Any) -> PlanScheduler:
    return PlanScheduler(lambda steps: diffexp.compile(name, steps=steps, model=SPEC, **options))


@functools.cache
def network() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()


def draw(scheduler: object, steps: int) -> np.ndarray:
    pipeline = DDPMPipeline(network(), scheduler)  # pyright: ignore[reportArgumentType]
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    return pipeline(batch_size=2, num_inference_steps=steps, generator=generator, output_type="np").images  # pyright: ignore


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_the_pipeline_draws_the_same_picture(steps: int) -> None:
    for ours, theirs in ((adapted("ddpm"), DDPMScheduler()), (adapted("ddim"), DDIMScheduler())):
        squared_error = np.square(draw(ours, steps) - draw(theirs, steps)).mean()
        assert squared_error < 1e-9  # a PSNR of 90 dB: what float32 rounding grows to on its way through the network


def test_it_can_be_used_again_with_other_steps() -> None:
    scheduler = adapted("ddpm")
    first = draw(scheduler, 5)
    draw(scheduler, 7)
    assert np.array_equal(draw(scheduler, 5), first)


def full_loop(scheduler: PlanScheduler | EulerDiscreteScheduler, begin: int = 0) -> torch.Tensor:
    scheduler.set_timesteps(6)
    x = torch.linspace(-1, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4) * scheduler.init_noise_sigma
    if begin:
        scheduler.set_begin_index(begin)
    for t in scheduler.timesteps[begin:]:
        u = scheduler.scale_model_input(x, t)
        x = scheduler.step(torch.sin(u), t, x).prev_sample  # pyright: ignore
    return x


@pytest.mark.parametrize("begin", [0, 2, 5])
def test_full_loop_equals_the_class_also_from_the_middle(begin: int) -> None:
    theirs = EulerDiscreteScheduler(beta_start=1e-4, beta_end=0.02)
    ours = PlanScheduler(
        lambda steps: diffexp.compile(EulerDiscreteScheduler(beta_start=1e-4, beta_end=0.02), steps=steps)
    )
    assert torch.allclose(full_loop(ours, begin), full_loop(theirs, begin), rtol=1e-4, atol=1e-4)
    assert ours.step_index == theirs.step_index == 6


def test_multistep_history_is_kept_and_dropped() -> None:
    from diffusers import DPMSolverMultistepScheduler

    theirs = DPMSolverMultistepScheduler()
    ours = PlanScheduler(lambda steps: diffexp.compile(DPMSolverMultistepScheduler(), steps=steps))
    first = full_loop(ours)
    assert torch.allclose(first, full_loop(theirs), atol=1e-4)  # pyright: ignore
    assert torch.equal(full_loop(ours), first)


def test_step_gives_a_tuple_on_demand_and_leaves_its_inputs_alone() -> None:
    scheduler = adapted("ddim")
    scheduler.set_timesteps(4)
    sample, output = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    kept = sample.clone(), output.clone()
    t = scheduler.timesteps[0]
    (as_tuple,) = scheduler.step(output, t, sample, return_dict=False)  # pyright: ignore
    assert as_tuple.shape == sample.shape and torch.equal(sample, kept[0]) and torch.equal(output, kept[1])
    half = scheduler.step(output.half(), t, sample.half()).prev_sample  # pyright: ignore
    assert half.dtype == torch.float16


def test_add_noise_is_that_of_the_class() -> None:
    clean, noise = torch.randn(2, 2, 3, 4, 4)
    ours = adapted("ddpm")
    theirs: Any = DDPMScheduler()
    ours.set_timesteps(10)
    theirs.set_timesteps(10)
    t = theirs.timesteps[[2, 7]]
    assert torch.allclose(ours.add_noise(clean, noise, t), theirs.add_noise(clean, noise, t), atol=1e-6)


def test_what_a_pipeline_cannot_do_is_said() -> None:
    scheduler = adapted("ddim")
    with pytest.raises(ValueError, match="set_timesteps"):
        _ = scheduler.plan
    churned = PlanScheduler(lambda steps: Plan(diffexp.compile("ddim", steps=steps).rows, start_z=(0.1,)))
    with pytest.raises(ValueError, match="before its first evaluation"):
        churned.set_timesteps(3)
    assert len(scheduler) == 1000
