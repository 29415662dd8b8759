"""A PlanScheduler of a class of diffusers does what the class does, whatever a caller does between its steps.

Where it cannot, the reason stands in ``OTHERWISE``.
"""

import functools
import inspect
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import diffexp
from diffexp.api import own_training
from diffexp.catalog.diffusers import CLASSES
from diffexp.components.sampler import Recipe, compile_recipe
from diffexp.plan.adapter import PlanScheduler

STEPS = 7
OTHERWISE = {
    "cogvideox_dpm": "its step wants the last x0 estimate and timestep from its pipeline; here they are kept",
}
"""Classes whose ``step`` is called otherwise, with the reason."""
NO_TABLE = {
    "DDIMScheduler": ({"thresholding": True}, "dynamic thresholding sorts the values of a sample"),
    "UnCLIPScheduler": ({"variance_type": "learned_range"}, "the network's second half of channels is a variance"),
    "DDIMInverseScheduler": ({"beta_start": 0.1, "beta_end": 2.0}, "a class whose own numbers are not finite"),
    "TCDScheduler": ({"num_train_timesteps": 2}, "a class that refuses every number of steps"),
}
"""Options with which a class does not compile, each with the reason: it then runs itself, without a PlanScheduler."""
SAME = [name for name in sorted(CLASSES) if name not in OTHERWISE]


def class_of(name: str) -> Any:
    return getattr(diffusers, CLASSES[name][1])


def planned(cls: Any, **options: Any) -> PlanScheduler:
    """As the loop of pipelines makes it, but in the class's own scaling of x."""
    recipe = Recipe(cls(**options), STEPS, own_training(cls(**options), {}))
    return PlanScheduler(functools.partial(compile_recipe, recipe), config=cls(**options).config)


def both(cls: Any, **options: Any) -> tuple[Any, Any]:
    return planned(cls, **options), cls(**options)


def tensor(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(u: Tensor) -> Tensor:
    return torch.sin(1.3 * u)


def blended(scheduler: Any, begin: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> Tensor:
    """All samples of a loop whose caller blends something else into the latents before every step."""
    x, found = tensor(0, dtype) * float(getattr(scheduler, "init_noise_sigma", 1.0)), []
    if begin and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    generator = torch.Generator().manual_seed(5)
    for k, t in enumerate(scheduler.timesteps[begin:]):
        x = 0.8 * x + 0.3 * tensor(k, dtype)
        u = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        draws = {} if "variance_noise" in options else drawing(scheduler, generator)
        x = scheduler.step(network(u), t, x, **options, **draws).prev_sample
        found.append(x)
    return torch.stack(found)


def drawing(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """The generator as a keyword of ``step``, for classes that have it."""
    return {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}


def assert_same(ours: Tensor, theirs: Tensor, relative: float = 2e-6) -> None:
    assert ours.shape == theirs.shape and theirs.isfinite().all()
    assert (ours - theirs).abs().max() <= relative * theirs.abs().max()


@pytest.mark.parametrize("begin", [0, 2])
@pytest.mark.parametrize("name", SAME)
def test_latents_that_are_edited_between_steps(name: str, begin: int) -> None:
    ours, theirs = both(class_of(name))
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(STEPS)
    assert torch.equal(ours.timesteps, theirs.timesteps) and ours.order == getattr(theirs, "order", 1)
    found = blended(ours, begin)
    assert_same(found, blended(theirs, begin))
    if hasattr(theirs, "step_index"):
        assert ours.step_index == theirs.step_index
    ours.set_timesteps(STEPS)
    assert torch.equal(blended(ours, begin), found)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dpmsolver_multistep", {"solver_order": 3, "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
        ("dpmsolver_multistep", {"use_lu_lambdas": True, "final_sigmas_type": "sigma_min"}),
        ("dpmsolver_singlestep", {"solver_order": 3}),
        ("deis", {"solver_order": 3}),
        ("unipc", {"solver_order": 3, "disable_corrector": [1]}),
        ("sasolver", {"predictor_order": 3, "corrector_order": 4}),
        ("pndm", {"skip_prk_steps": True}),
        ("ddpm", {"clip_sample": True, "clip_sample_range": 0.7, "variance_type": "fixed_large"}),
        ("heun", {"use_karras_sigmas": True, "clip_sample": True, "prediction_type": "sample"}),
        ("lms", {"use_karras_sigmas": True, "prediction_type": "v_prediction"}),
        ("euler", {"interpolation_type": "log_linear", "use_exponential_sigmas": True}),
    ],
)
def test_edited_latents_with_options(name: str, options: dict[str, Any]) -> None:
    ours, theirs = both(class_of(name), **options)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(STEPS)
    assert_same(blended(ours), blended(theirs))


@pytest.mark.parametrize(
    "name", ["euler", "heun", "kdpm2_ancestral", "dpmsolver_multistep", "unipc", "lms", "edm_euler"]
)
def test_edited_latents_of_a_plan_in_the_scale_of_the_network(name: str) -> None:
    """As loop=pipeline uses plans; the caller then sees, edits and gets the network's input."""
    cls = class_of(name)
    ours, theirs = PlanScheduler(lambda steps: diffexp.compile(cls(), steps=steps).unscaled()), cls()
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(STEPS)
    start, more = tensor(0), tensor(1)
    x, y = start * float(ours.init_noise_sigma), start * float(theirs.init_noise_sigma)
    one, other = (torch.Generator().manual_seed(5) for _ in range(2))
    for t in theirs.timesteps:
        assert torch.equal(ours.scale_model_input(x, t), x)
        u = theirs.scale_model_input(y, t)
        scale = float((u * y).sum() / (y * y).sum())
        assert_same(x, u, 1e-5)
        x, y = x + 0.1 * scale * more, y + 0.1 * more
        output = network(x)
        x = ours.step(output, t, x, generator=one).prev_sample
        y = theirs.step(output, t, y, **drawing(theirs, other)).prev_sample
    assert_same(x, y, 1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in SAME if hasattr(class_of(name), "add_noise")]
    + [("dpmsolver_multistep", {"use_karras_sigmas": True}), ("unipc", {"use_karras_sigmas": True})],
)
def test_noise_is_added_as_the_class_adds_it(name: str, options: dict[str, Any]) -> None:
    ours, theirs = both(class_of(name), **options)
    clean, noise = tensor(1, torch.float32), tensor(2, torch.float32)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(10)
    for picked in ([2, 7], [5, 5], [9, 0]):
        t = theirs.timesteps[picked]
        assert torch.equal(ours.add_noise(clean, noise, t), theirs.add_noise(clean, noise, t))
    t = theirs.timesteps[4:5]
    for scheduler in (ours, theirs):
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(4)
    assert torch.equal(ours.add_noise(clean, noise, t), theirs.add_noise(clean, noise, t))


@pytest.mark.parametrize("name", ["flow_match_euler", "flow_match_heun"])
def test_noise_is_scaled_as_flow_classes_scale_it(name: str) -> None:
    ours, theirs = both(class_of(name), shift=3.0)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(6)
    given = tensor(1, torch.float32), theirs.timesteps[3:4], tensor(2, torch.float32)
    assert torch.equal(ours.scale_noise(*given), theirs.scale_noise(*given))
    assert torch.equal(ours.sigmas, theirs.sigmas)


@pytest.mark.parametrize("options", [{"interpolation_type": "log_linear"}, {"timestep_type": "continuous"}, {}])
def test_timesteps_of_the_callers_are_the_objects_affair(options: dict[str, Any]) -> None:
    ours, theirs = both(diffusers.EulerDiscreteScheduler, **options)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(timesteps=[999, 888.2, 777, 500, 300, 0])
    assert torch.equal(ours.timesteps, theirs.timesteps) and torch.equal(ours.sigmas, theirs.sigmas)
    assert_same(blended(ours), blended(theirs))
    for scheduler in (ours, theirs):
        with pytest.raises(ValueError, match="Can only pass one of"):
            scheduler.set_timesteps(5, timesteps=[900, 100])


@pytest.mark.parametrize("options", [{}, {"final_sigmas_type": "sigma_min"}])
def test_sigmas_of_another_scheduler(options: dict[str, Any]) -> None:
    ours, theirs = both(diffusers.EulerDiscreteScheduler, **options)
    theirs.set_timesteps(6)
    asked = theirs.sigmas.tolist()
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(sigmas=asked)
    assert torch.equal(ours.sigmas, theirs.sigmas) and ours.num_inference_steps == theirs.num_inference_steps == 6
    assert_same(blended(ours), blended(theirs))
