"""What diffusers asks of every scheduler of its own, asked of plans: shapes, types, repetition, given levels."""

import copy
import functools
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from diffexp.api import own_training
from diffexp.catalog.discover import discover
from diffexp.components.sampler import Recipe, compile_recipe
from diffexp.plan.adapter import PlanScheduler
from diffexp.plan.predictions import Prediction
from diffexp.plan.schedules import FlowSchedule, VPSchedule
from diffexp.plan.training import Training

NAMES = ["ddpm", "ddim", "euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "deis", "unipc", "pndm", "lms"]
TRAININGS = {
    "epsilon": Training(VPSchedule.from_betas()),
    "v": Training(VPSchedule.from_betas(), Prediction.V),
    "sample": Training(VPSchedule.from_betas(), Prediction.SAMPLE),
    "flow": Training(FlowSchedule(), Prediction.FLOW, spacing="flow"),
}


def planned(name: str, training: Training = TRAININGS["epsilon"]) -> PlanScheduler:
    function = discover().build("scheduler", {"name": name}).func
    scheduler = PlanScheduler(functools.partial(compile_recipe, Recipe(function, 7, training)))
    scheduler.set_timesteps(7)
    return scheduler


def loop(scheduler: Any, x: Tensor, generator: torch.Generator | None = None, return_dict: bool = True) -> Tensor:
    draws = {} if generator is None else {"generator": generator}
    for t in scheduler.timesteps:
        output = torch.sin(scheduler.scale_model_input(x, t))
        found = scheduler.step(output, t, x, return_dict=return_dict, **draws)
        x = found.prev_sample if return_dict else found[0]
    return x


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("prediction", TRAININGS)
@pytest.mark.parametrize("name", NAMES)
def test_a_full_loop_of_any_shape(name: str, prediction: str) -> None:
    for shape in [(2, 3, 8, 8), (1, 4, 3, 6, 6), (2, 5)]:
        scheduler = planned(name, TRAININGS[prediction])
        x = torch.randn(shape, generator=seeded()) * scheduler.init_noise_sigma
        found = loop(scheduler, x, seeded())
        assert found.shape == x.shape and found.dtype == x.dtype and torch.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_tuple_is_what_the_output_class_holds(name: str) -> None:
    scheduler, x = planned(name), torch.randn(2, 3, 4, 4, generator=seeded())
    assert torch.equal(loop(scheduler, x, seeded()), loop(scheduler, x, seeded(), return_dict=False))


@pytest.mark.parametrize("name", NAMES)
def test_a_second_run_is_the_first_and_so_is_a_copys(name: str) -> None:
    scheduler, x = planned(name), torch.randn(2, 3, 4, 4, generator=seeded())
    first = loop(scheduler, x, seeded())
    again = copy.deepcopy(scheduler)
    scheduler.set_timesteps(3)
    loop(scheduler, x, seeded())
    scheduler.set_timesteps(7)
    assert torch.equal(loop(scheduler, x, seeded()), first) and torch.equal(loop(again, x, seeded()), first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_the_type_of_the_sample_is_kept(name: str, dtype: torch.dtype) -> None:
    scheduler, x = planned(name), torch.randn(1, 3, 4, 4, generator=seeded())
    expected, found = loop(scheduler, x, seeded()), loop(scheduler, x.to(dtype), seeded())
    assert found.dtype == dtype and torch.isfinite(found).all()
    if dtype != torch.float64:  # in which a generator draws other noise
        assert (found.float() - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_what_pipelines_read(name: str) -> None:
    scheduler = planned(name)
    steps = scheduler.timesteps.tolist()
    assert steps == sorted(steps, reverse=True) and steps[-1] >= 0 and steps[0] <= 999
    assert len(steps) == scheduler.plan.nfe and scheduler.order in (1, 2)
    assert scheduler.init_noise_sigma > 0 and scheduler.step_index is None
    x = torch.randn(2, 3, 4, 4, generator=seeded())
    for t in scheduler.timesteps:
        assert scheduler.scale_model_input(x, t).shape == x.shape
    other: Any = DDIMScheduler.from_config(scheduler.config)  # as users change schedulers
    assert (other.config["num_train_timesteps"], other.config["prediction_type"]) == (1000, "epsilon")


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_added_for_each_sample_as_far_as_its_own_timestep(name: str) -> None:
    scheduler = planned(name)
    clean, noise = torch.randn(2, 2, 3, 4, 4, generator=seeded()).unbind()
    rows = [scheduler.plan.rows[0], scheduler.plan.rows[-1]]
    found = scheduler.add_noise(clean, noise, torch.tensor([row.level.timestep for row in rows]))
    for one, x, z, row in zip(found, clean, noise, rows):
        assert torch.allclose(one * row.scale, row.level.alpha * x + row.level.sigma * z, rtol=1e-4, atol=1e-5)
    half = scheduler.add_noise(clean.half(), noise.half(), scheduler.timesteps[[1, 1]])
    assert half.dtype == torch.float16


@pytest.mark.parametrize("asked", [[987, 703, 400, 111, 2], [999], [600, 599]])
@pytest.mark.parametrize("cls", [DDPMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_timesteps_of_the_callers_as_the_class_takes_them(cls: Any, asked: list[int]) -> None:
    theirs = cls()
    ours = PlanScheduler(functools.partial(compile_recipe, Recipe(cls, 6, own_training(theirs, {}))))
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(timesteps=asked)
        assert scheduler.timesteps.tolist() == asked
    x = torch.randn(2, 3, 4, 4, generator=seeded()) * float(theirs.init_noise_sigma)
    assert torch.allclose(loop(ours, x, seeded()), loop(theirs, x, seeded()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("asked", [[14.0, 5.0, 1.3, 0.2], [0.5]])
def test_sigmas_of_the_callers_as_the_class_takes_them(asked: list[float]) -> None:
    theirs: Any = EulerDiscreteScheduler()
    ours = PlanScheduler(
        functools.partial(compile_recipe, Recipe(EulerDiscreteScheduler, 6, own_training(theirs, {}))),
    )
    ours.set_timesteps(sigmas=asked)
    theirs.set_timesteps(sigmas=[*asked, 0.0])  # the class takes the clean end as one of them
    x = torch.randn(2, 3, 4, 4, generator=seeded()) * asked[0]
    assert torch.allclose(loop(ours, x), loop(theirs, x), rtol=1e-3, atol=1e-3)
