"""A plan inside a diffusers pipeline."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UNet2DModel,
    UniPCMultistepScheduler,
)

import diffexp
import diffexp.api
from diffexp.catalog.discover import discover
from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import Recipe, compile_recipe
from diffexp.plan.adapter import PlanScheduler
from diffexp.plan.predictions import Clip, Prediction
from diffexp.plan.schedules import FlowSchedule, VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

TRAINING = Training(VPSchedule.from_betas(), clip=Clip())


def adapted(name: str, **options: Any) -> PlanScheduler:
    return PlanScheduler(lambda steps: diffexp.compile(name, steps=steps, model=TRAINING, **options))


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
    theirs = DPMSolverMultistepScheduler()
    ours = PlanScheduler(lambda steps: diffexp.compile(DPMSolverMultistepScheduler(), steps=steps))
    first = full_loop(ours)
    assert torch.allclose(first, full_loop(theirs), atol=1e-4)  # pyright: ignore
    assert torch.equal(full_loop(ours), first)


def from_recipe(scheduler: Any, training: Training, **options: Any) -> PlanScheduler:
    return PlanScheduler(functools.partial(compile_recipe, Recipe(scheduler, 6, training)), **options)


@pytest.mark.parametrize("cls", [DPMSolverMultistepScheduler, HeunDiscreteScheduler, UniPCMultistepScheduler])
@pytest.mark.parametrize("begin", [0, 2, 4])
def test_a_method_that_looks_back_begins_in_the_middle_as_the_class_does(cls: Any, begin: int) -> None:
    theirs = cls()
    training = diffexp.api.own_training(theirs, {})
    assert torch.allclose(full_loop(from_recipe(cls, training), begin), full_loop(theirs, begin), atol=1e-4)


def test_the_whole_plan_is_back_after_a_start_in_the_middle() -> None:
    training = Training(VPSchedule.from_betas())
    scheduler = from_recipe(DPMSolverMultistepScheduler, training)
    first = full_loop(scheduler)
    full_loop(scheduler, 3)
    assert torch.equal(full_loop(scheduler), first)


def test_two_evaluations_a_step() -> None:
    scheduler = from_recipe(discover().build("scheduler", {"name": "heun"}).func, TRAINING)
    scheduler.set_timesteps(6)
    assert scheduler.order == 2 and len(scheduler.timesteps) == 11
    scheduler.set_begin_index(4)
    t = scheduler.timesteps[4]
    assert torch.isfinite(scheduler.step(torch.ones(1, 1, 2, 2), t, torch.ones(1, 1, 2, 2)).prev_sample).all()  # pyright: ignore


def test_a_device_is_not_asked_which_timestep_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the loop of a pipeline a GPU would have to finish first."""
    scheduler = adapted("ddim")
    scheduler.set_timesteps(4)
    x, asked = torch.ones(1, 1, 2, 2), torch.Tensor.__float__
    monkeypatch.setattr(torch.Tensor, "__float__", lambda self: pytest.fail("a tensor was asked for its value"))
    for t in scheduler.timesteps[1:]:
        x = scheduler.step(torch.sin(scheduler.scale_model_input(x, t)), t, x, return_dict=False)[0]
    monkeypatch.setattr(torch.Tensor, "__float__", asked)
    assert scheduler.step_index == 4
    y = torch.ones(1, 1, 2, 2)
    for t in scheduler.timesteps[1:].tolist():
        y = scheduler.step(torch.sin(scheduler.scale_model_input(y, t)), t, y, return_dict=False)[0]
    assert torch.equal(x, y)


def test_levels_that_a_flow_pipeline_asks_for() -> None:
    """Flux hands over sigmas and a shift; a grid that was chosen for the plan is kept."""
    stock: Any = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", **stock.config}
    training = Training(FlowSchedule(), Prediction.FLOW, None, config, "flow")
    ours = from_recipe(discover().build("scheduler", {"name": "euler"}).func, training)
    asked: dict[str, Any] = {"sigmas": np.linspace(1, 0.2, 5), "mu": 0.7}
    stock.set_timesteps(**asked)
    ours.set_timesteps(**asked)
    assert torch.allclose(ours.timesteps, stock.timesteps, rtol=1e-5)
    x = y = torch.randn(2, 3, 4, 4)
    for t, s in zip(ours.timesteps, stock.timesteps):
        x = ours.step(torch.sin(x), t, x, return_dict=False)[0]
        y = stock.step(torch.sin(y), s, y, return_dict=False)[0]
    assert torch.allclose(x, y, atol=1e-5)
    clean, noise = torch.randn(2, 2, 3, 4, 4)
    t = stock.timesteps[1:2].expand(2)
    assert torch.allclose(ours.scale_noise(clean, t, noise), stock.scale_noise(clean, t, noise), atol=1e-5)
    kept = Recipe(discover().build("scheduler", {"name": "euler"}).func, 5, training, Grid(sigmas=[0.9, 0.5, 0.1]))
    ours = PlanScheduler(functools.partial(compile_recipe, kept))
    ours.set_timesteps(3, mu=0.7)
    assert ours.timesteps.tolist() == pytest.approx([900, 500, 100])
    ours.set_timesteps(timesteps=[800, 300])
    assert ours.timesteps.tolist() == [800, 300]


def test_every_step_is_watched_as_the_network_sees_it() -> None:
    seen = []
    scheduler = PlanScheduler(
        lambda steps: diffexp.compile(EulerDiscreteScheduler(), steps=steps),
        observe=lambda u, output, level: seen.append((u, output, level)),
    )
    scheduler.set_timesteps(3)
    x, output = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    scheduler.step(output, scheduler.timesteps[0], x)
    u, said, level = seen[0]
    assert torch.equal(said, output) and level.timestep == float(scheduler.timesteps[0])
    assert torch.equal(u, scheduler.scale_model_input(x, scheduler.timesteps[0]))


def test_noise_of_a_pipeline_that_hands_over_no_generator() -> None:
    """Flow pipelines: every sample still has its own stream."""

    def step(generators: list[torch.Generator], i: slice) -> torch.Tensor:
        scheduler = from_recipe(discover().build("scheduler", {"name": "ddpm"}).func, TRAINING, generators=generators)
        scheduler.set_timesteps(3)
        x = torch.zeros(2, 1, 4, 4)[i]
        return scheduler.step(x, scheduler.timesteps[0], x, return_dict=False)[0]  # pyright: ignore

    together = step([torch.Generator().manual_seed(i) for i in range(2)], slice(0, 2))
    assert torch.equal(together[1:], step([torch.Generator().manual_seed(1)], slice(1, 2)))


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
