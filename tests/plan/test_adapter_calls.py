"""Calls that the classes of diffusers take, made of a PlanScheduler: keywords, attributes, unusual orders, errors."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput

import diffexp
from diffexp.errors import InputError
from diffexp.plan.adapter import PlanScheduler
from diffexp.plan.trace import NotLinear
from tests.plan.test_adapter_as_the_class import (
    NO_TABLE,
    OTHERWISE,
    SAME,
    assert_same,
    blended,
    both,
    class_of,
    drawing,
    network,
    planned,
    tensor,
)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddim", {"eta": 0.7}),
        ("ddim", {"eta": 1.0, "use_clipped_model_output": True}),
        ("ddim", {"eta": 0.5, "variance_noise": tensor(9)}),
        ("dpmsolver_multistep", {"variance_noise": tensor(9)}),
        ("tcd", {"eta": 0.9}),
        ("edm_euler", {"s_churn": 2.0, "s_noise": 1.1}),
        ("euler", {"s_churn": 2.0, "s_tmin": 0.5}),
        ("unclip", {"prev_timestep": 1}),
    ],
)
def test_keywords_of_step(name: str, options: dict[str, Any]) -> None:
    more = {"algorithm_type": "sde-dpmsolver++"} if name == "dpmsolver_multistep" else {}
    ours, theirs, plain = *both(class_of(name), **more), class_of(name)(**more)
    for scheduler in (ours, theirs, plain):
        scheduler.set_timesteps(6)
    expected = blended(theirs, **options)
    assert_same(blended(ours, **options), expected)
    assert not torch.equal(expected, blended(plain))  # the keywords matter


def test_keywords_by_position_and_those_that_no_one_knows() -> None:
    ours, theirs = both(diffusers.DDIMScheduler)
    function = PlanScheduler(lambda steps: diffexp.compile("ddim", steps=steps))
    for scheduler in (ours, theirs, function):
        scheduler.set_timesteps(5)
    t, x, m = theirs.timesteps[1], tensor(0), tensor(1)
    given = (0.8, True, None, tensor(2))  # eta, use_clipped_model_output, generator, variance_noise
    assert_same(ours.step(m, t, x, *given).prev_sample, theirs.step(m, t, x, *given).prev_sample)
    assert_same(ours.step(m, t, x, *given).pred_original_sample, theirs.step(m, t, x, *given).pred_original_sample)
    for scheduler in (ours, function):
        with pytest.raises(TypeError, match="unexpected keyword argument 'etta'"):
            scheduler.step(m, t, x, etta=1.0)


@pytest.mark.parametrize("name", SAME)
def test_what_step_returns(name: str) -> None:
    ours, theirs = both(class_of(name))
    found = []
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(6)
        t, draws = scheduler.timesteps[0], drawing(theirs, torch.Generator().manual_seed(0))
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(tensor(0), t)
        as_object = scheduler.step(tensor(1), t, tensor(0), **draws)
        scheduler.set_timesteps(6)
        draws = drawing(theirs, torch.Generator().manual_seed(0))
        as_tuple = scheduler.step(tensor(1), t, tensor(0), return_dict=False, **draws)
        assert torch.equal(as_tuple[0], as_object.prev_sample)
        found.append((as_object, as_tuple))
    (one, ones), (other, others) = found
    assert type(one) is type(other) and one.keys() == other.keys() and len(ones) == len(others)
    for a, b in zip([*one.values(), *ones], [*other.values(), *others]):
        assert_same(a, b)


@pytest.mark.parametrize("name", SAME)
def test_what_pipelines_read(name: str) -> None:
    ours, theirs = both(class_of(name))
    for prepare in (False, True):
        if prepare:
            for scheduler in (ours, theirs):
                scheduler.set_timesteps(6)
        if getattr(theirs, "timesteps", None) is not None:
            assert torch.equal(ours.timesteps, theirs.timesteps) and ours.timesteps.dtype == theirs.timesteps.dtype
        if hasattr(theirs, "init_noise_sigma"):
            assert type(ours.init_noise_sigma) is type(theirs.init_noise_sigma)
            assert float(ours.init_noise_sigma) == float(theirs.init_noise_sigma)
        for attribute in ("sigmas", "betas", "alphas_cumprod"):
            if getattr(theirs, attribute, None) is not None:
                assert torch.equal(getattr(ours, attribute), getattr(theirs, attribute))
    assert ours.num_inference_steps == theirs.num_inference_steps
    if hasattr(theirs, "previous_timestep"):
        assert [int(ours.previous_timestep(t)) for t in theirs.timesteps] == [
            int(theirs.previous_timestep(t)) for t in theirs.timesteps
        ]


@pytest.mark.parametrize("name", SAME)
def test_another_scheduler_is_made_of_its_config(name: str) -> None:
    cls = class_of(name)
    theirs = cls()
    given, asked = planned(cls), PlanScheduler(lambda steps: diffexp.compile(cls(), steps=steps))
    asked.set_timesteps(6)
    for ours in (given, asked):
        again: Any = cls.from_config(ours.config)
        assert {key: value for key, value in again.config.items() if key in theirs.config} == dict(theirs.config)


def test_velocities_are_those_of_the_class() -> None:
    ours, theirs = both(diffusers.DDPMScheduler)
    given = tensor(0), tensor(1), torch.tensor([3, 800])
    assert torch.equal(ours.get_velocity(*given), theirs.get_velocity(*given))
    assert torch.equal(ours.add_noise(*given), theirs.add_noise(*given))  # as in training, without any steps set


@pytest.mark.parametrize("name", ["ddpm", "ddpm_parallel", "unclip"])
def test_steps_before_the_timesteps_are_set(name: str) -> None:
    x, found = tensor(0), []
    for scheduler in both(class_of(name)):
        y, generator = x, torch.Generator().manual_seed(0)
        for t in (999, 998, 500, 1, 0):
            y = scheduler.step(network(y), t, y, generator=generator).prev_sample
        found.append(y)
    assert_same(*found)


@pytest.mark.parametrize("name", ["ddim", "euler", "dpmsolver_multistep", "unipc", "pndm", "lcm"])
def test_errors_are_those_of_the_class(name: str) -> None:
    messages = []
    for scheduler in both(class_of(name)):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            scheduler.step(tensor(1), 10, tensor(0))
        messages.append((caught.type, str(caught.value)))
    assert messages[0] == messages[1]


def test_a_function_steps_only_after_its_timesteps_are_set() -> None:
    with pytest.raises(ValueError, match="call set_timesteps"):
        PlanScheduler(lambda steps: diffexp.compile("ddim", steps=steps)).step(tensor(1), 10, tensor(0))


def test_any_order_of_timesteps_and_any_number_of_rounds() -> None:
    ours, theirs = both(diffusers.DDIMScheduler)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(5)
    x = y = tensor(0)
    for index in (0, 3, 1, 4, 4, 2, 0, 1):
        t = theirs.timesteps[index]
        x, y = ours.step(network(x), t, x).prev_sample, theirs.step(network(y), t, y).prev_sample
    assert_same(x, y)


def test_the_state_of_the_object_can_be_read_and_set() -> None:
    ours, theirs = both(diffusers.DPMSolverMultistepScheduler)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(6)
        blended(scheduler)
        scheduler.set_timesteps(6)
        scheduler.model_outputs = [tensor(3), tensor(4)]
        scheduler.lower_order_nums = 2
    assert torch.equal(ours.model_outputs[1], tensor(4))
    assert_same(blended(ours), blended(theirs))
    assert_same(ours.model_outputs[0], theirs.model_outputs[0])


def test_steps_of_a_class_that_are_called_by_another_name() -> None:
    ours, theirs = both(diffusers.PNDMScheduler)
    found = []
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(5)
        x = tensor(0)
        for t in scheduler.prk_timesteps:
            x = scheduler.step_prk(network(x), int(t), x).prev_sample
        for t in scheduler.plms_timesteps:
            x = scheduler.step_plms(network(x), int(t), x).prev_sample
        found.append(x)
    assert_same(*found)


class Bare:
    """A class as somebody may write it: no config, no output object, a step that returns the sample itself."""

    def set_timesteps(self, num_inference_steps: int) -> None:
        self.timesteps = torch.linspace(900, 100, num_inference_steps).long()
        self.last = None

    def step(self, output: Any, timestep: Any, sample: Any) -> Any:
        found = 0.9 * sample + 0.1 * output + (0 if self.last is None else 0.2 * self.last)
        self.last = sample
        return found


def test_a_class_of_ones_own() -> None:
    ours, theirs = PlanScheduler(lambda steps: diffexp.compile(Bare(), steps=steps)), Bare()
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(4)
    x = y = tensor(0)
    for k, t in enumerate(theirs.timesteps):
        x, y = x + tensor(k), y + tensor(k)
        stepped = ours.step(network(x), t, x)
        assert isinstance(stepped, SchedulerOutput)
        x, y = stepped.prev_sample, theirs.step(network(y), t, y)
    assert_same(x, y)
    assert len(ours.step(x, theirs.timesteps[0], x, return_dict=False)) == 1


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_class_that_is_called_otherwise_keeps_its_state_itself(name: str) -> None:
    ours, theirs = both(class_of(name))
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(6)
    x = y = tensor(0)
    one, other = (torch.Generator().manual_seed(5) for _ in range(2))
    last_x0 = last_t = None
    for t in theirs.timesteps:
        x, y = x + 0.1 * tensor(1), y + 0.1 * tensor(1)
        x = ours.step(network(x), t, x, generator=one, return_dict=False)[0]
        y, last_x0 = theirs.step(network(y), last_x0, t, last_t, y, generator=other, return_dict=False)
        last_t = t
    assert_same(x, y)


@pytest.mark.parametrize("name", NO_TABLE)
def test_what_does_not_compile_is_refused(name: str) -> None:
    options, _ = NO_TABLE[name]
    ours = planned(getattr(diffusers, name), **options)
    with pytest.raises((InputError, NotLinear)):
        ours.set_timesteps(6)
