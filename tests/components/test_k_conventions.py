"""Samplers of k-diffusion and ComfyUI run unchanged: each thing that they ask of their model is there and right."""

import math
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import diffexp
from diffexp.catalog.discover import discover
from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import Recipe
from diffexp.components.schedulers.foreign.k_diffusion import READS_UNCONDITIONAL
from diffexp.errors import InputError
from diffexp.experiment.build import assemble
from diffexp.plan.compile import Direct, sample
from diffexp.plan.levels import Level
from diffexp.plan.predictions import Prediction
from diffexp.plan.schedules import FlowSchedule, VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.trace import NotLinear
from diffexp.plan.training import Training
from tests.checkpoints import save_unet, tiny_digits_unet
from tests.runs import points, record

VP = Training(VPSchedule.from_betas(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012))
FLOW = Training(FlowSchedule(), Prediction.FLOW)
SHAPE = (2, 3, 4, 4)


def clean(x: Tensor, sigma: float) -> Tensor:
    """A nonlinear x0 estimate for x = x0 + sigma * eps, or for x on the straight path."""
    return torch.tanh(x / (1 + sigma))


def network(u: Tensor, level: Level) -> Tensor:
    if level.alpha + level.sigma == pytest.approx(1):  # flow
        return (u - clean(u, level.sigma)) / level.sigma
    return (u - level.alpha * clean(u / level.alpha, level.sigma / level.alpha)) / level.sigma


def start() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def noises() -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(1)
    return lambda: torch.randn(SHAPE, generator=generator, dtype=torch.float64)


def sampled(sampler: Any, training: Training, steps: int = 6, **options: Any) -> tuple[Any, Tensor]:
    """The sampler as diffexp runs it, and its sample."""
    found = Recipe(sampler, steps, training, Grid(), options).sampler
    return found, sample(found, network, start() * found.start_std, noises())


def expected(sampler: Any, training: Training, model: Any, *arguments: Any, **options: Any) -> Tensor:
    """The sampler called as its author calls it."""
    levels = Grid().levels(training, 6)
    flow = training is FLOW
    sigmas = torch.tensor([level.sigma if flow else level.ratio for level in levels], dtype=torch.float64)
    x = start() * levels.start_std / (1 if flow else levels[0].alpha)
    return sampler(model, x, *(arguments or (sigmas,)), **options)


def plain(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
    return clean(x, float(sigma[0]))


def agree(found: Tensor, wanted: Tensor) -> bool:
    return bool(torch.allclose(found, wanted, rtol=1e-9, atol=1e-9))


# the convention of ComfyUI


def sample_renoise(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler: Any = None):
    """Asks for the noise schedule in both places, and lets it add the noise."""
    extra_args = {} if extra_args is None else extra_args
    assert extra_args.get("seed", None) is None
    sampling = model.inner_model.inner_model.model_sampling
    assert sampling is model.inner_model.model_patcher.get_model_object("model_sampling")
    const = getattr(sys.modules.get("comfy.model_sampling"), "CONST", None)
    flow = const is not None and isinstance(sampling, const)
    for sigma, after in zip(sigmas, sigmas[1:]):
        x = model(x, sigma * x.new_ones([len(x)]), **extra_args)
        if after > 0:
            noise = noise_sampler(sigma, after)
            x = (1 - after) * x + after * noise if flow else sampling.noise_scaling(after, noise, x)
    return x


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = ModuleType("comfy.model_sampling")
    module.CONST = type("CONST", (), {})  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "comfy.model_sampling", module)
    return module


@pytest.mark.parametrize("training", [VP, FLOW], ids=["vp", "flow"])
def test_the_noise_schedule_is_that_of_the_model(training: Training, comfy: Any) -> None:
    flow = training is FLOW
    sampling = comfy.CONST() if flow else SimpleNamespace(noise_scaling=lambda sigma, noise, x: x + sigma * noise)
    wrapped = SimpleNamespace(
        inner_model=SimpleNamespace(model_sampling=sampling),
        model_patcher=SimpleNamespace(get_model_object=lambda name: sampling),
    )

    class Model:
        inner_model = wrapped
        __call__ = staticmethod(plain)

    draw = noises()
    plan, found = sampled(sample_renoise, training)
    assert isinstance(plan, Plan)
    assert agree(found, expected(sample_renoise, training, Model(), noise_sampler=lambda *_: draw()))


@pytest.mark.parametrize("training", [VP, FLOW], ids=["vp", "flow"])
def test_what_is_asked_of_the_noise_schedule(training: Training) -> None:
    told: dict[str, Any] = {}

    def sample_asking(model, x, sigmas, extra_args=None):
        sampling = model.inner_model.model_sampling
        told.update(
            range=(float(sampling.sigma_min), float(sampling.sigma_max)),
            percents=[sampling.percent_to_sigma(percent) for percent in (0.0, 0.5, 1.0)],
            timestep=float(sampling.timestep(sigmas[:1])),
            sigma=float(sampling.sigma(torch.tensor([500.0]))),
            count=len(sampling.sigmas),
            unscaled=float(sampling.inverse_noise_scaling(sigmas[1], torch.ones(()))),
            after=float(sigmas[1]),
        )
        return model(x, sigmas[0] * x.new_ones([len(x)]))

    sampled(sample_asking, training)
    if training is VP:
        ratios = VP.schedule.ratios  # pyright: ignore[reportAttributeAccessIssue]
        assert told["range"] == pytest.approx((ratios[0], ratios[-1]))
        assert told["percents"] == pytest.approx([999999999.9, (ratios[499] + ratios[500]) / 2, 0])
        assert (told["sigma"], told["unscaled"]) == pytest.approx((ratios[500], 1))
        assert told["timestep"] == pytest.approx(Grid().levels(VP, 6)[0].timestep)
    else:
        assert told["range"] == pytest.approx((0.001, 1.0))
        assert told["percents"] == pytest.approx([1.0, 0.5005, 0])
        assert (told["sigma"], told["unscaled"]) == pytest.approx((0.5, 1 / (1 - told["after"])))
        assert told["timestep"] == pytest.approx(Grid().levels(FLOW, 6)[0].timestep)
    assert told["count"] == 1000


def sample_cfg_pp(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """CFG++ with Euler's steps: noise from the estimate without guidance, by a hook."""
    without = None

    def hook(arguments):
        nonlocal without
        without = arguments["uncond_denoised"]
        return arguments["denoised"]

    extra_args = {} if extra_args is None else extra_args
    options = extra_args.get("model_options", {}).copy()
    options["sampler_post_cfg_function"] = [*options.get("sampler_post_cfg_function", []), hook]
    extra_args["model_options"] = options
    for sigma, after in zip(sigmas, sigmas[1:]):
        denoised = model(x, sigma * x.new_ones([len(x)]), **extra_args)
        x = denoised + after * (x - without) / sigma
    return x


def test_a_hook_gets_the_estimates() -> None:
    def model(x: Tensor, sigma: Tensor, model_options: Any) -> Tensor:
        (hook,) = model_options["sampler_post_cfg_function"]
        denoised = plain(x, sigma)
        return hook({"denoised": denoised, "uncond_denoised": denoised})

    plan, found = sampled(sample_cfg_pp, VP)
    assert isinstance(plan, Plan)
    assert agree(found, expected(sample_cfg_pp, VP, model))
    assert getattr(sample_cfg_pp, READS_UNCONDITIONAL)


def test_a_hook_may_change_the_estimate() -> None:
    def sample_halved(model, x, sigmas, extra_args=None):
        options = {"sampler_post_cfg_function": [lambda arguments: arguments["denoised"] / 2]}
        for sigma, after in zip(sigmas, sigmas[1:]):
            denoised = model(x, sigma * x.new_ones([len(x)]), model_options=options)
            x = denoised + after / sigma * (x - denoised)
        return x

    _, found = sampled(sample_halved, VP)
    assert agree(found, expected(sample_halved, VP, lambda x, sigma, **_: plain(x, sigma) / 2))
    assert not hasattr(sample_halved, READS_UNCONDITIONAL)


# samplers that choose their own levels


def sample_even(model, x, sigma_min, sigma_max, n, extra_args=None, callback=None, disable=None, *, power: float = 1.0):
    """Euler's steps, evenly in the logarithm."""
    at = [sigma_max * (sigma_min / sigma_max) ** ((k / n) ** power) for k in range(n + 1)]
    for sigma, after in zip(at, at[1:]):
        denoised = model(x, sigma * x.new_ones([len(x)]))
        x = denoised + after / sigma * (x - denoised)
    return x


def sample_careful(model, x, sigma_min, sigma_max, extra_args=None, disable=None, *, rtol: float = 0.05):
    """Steps of Heun's method, as long as its difference from Euler's is small enough for the whole batch."""
    sigma, step = sigma_max, 0.5
    while sigma > sigma_min:
        after = max(sigma * step, sigma_min)
        slope = (x - model(x, sigma * x.new_ones([len(x)]))) / sigma
        euler = x + (after - sigma) * slope
        heun = x + (after - sigma) * (slope + (euler - model(euler, after * x.new_ones([len(x)]))) / after) / 2
        if step > 0.9 or float((heun - euler).abs().max()) < rtol * float(x.abs().max()):
            x, sigma, step = heun, after, step * 0.7
        else:
            step = math.sqrt(step)
    return x


@pytest.mark.parametrize("training", [VP, FLOW], ids=["vp", "flow"])
def test_a_sampler_that_spaces_its_own_levels(training: Training) -> None:
    low = 0.001 if training is FLOW else VP.schedule.ratios[0]  # pyright: ignore[reportAttributeAccessIssue]
    first = Grid().levels(training, 6)[0]
    high = first.sigma if training is FLOW else first.ratio
    for power in (1.0, 2.0):
        plan, found = sampled(sample_even, training, power=power)
        assert isinstance(plan, Plan)
        assert plan.nfe == 6
        assert agree(found, expected(sample_even, training, plain, low, high, 6, power=power))


def test_a_sampler_that_chooses_its_steps_runs_directly() -> None:
    direct, found = sampled(sample_careful, VP)
    assert isinstance(direct, Direct)
    assert direct.reason == "it chooses its steps by what it finds"
    low, high = VP.schedule.ratios[0], Grid().levels(VP, 6)[0].ratio  # pyright: ignore[reportAttributeAccessIssue]
    assert agree(found, expected(sample_careful, VP, plain, low, high))
    assert direct.couples_samples
    with pytest.raises(NotLinear, match="chooses its steps"):
        diffexp.compile(sample_careful, steps=6)
    with pytest.raises(InputError, match="max_nfe=10: sample_careful chooses its own number of evaluations"):
        Recipe(sample_careful, 6, VP).within(10)


def test_any_direct_sampler_is_tried_for_samples_that_depend_on_each_other() -> None:
    def blended(denoise, x, levels, noise, *, share: float = 0.0):
        for here, there in levels.pairs():
            x0, eps = denoise.predict(x, here)
            x0 = torch.tanh(x0 + share * x0.mean())
            x = there.alpha * x0 + there.sigma * eps + 0 * noise()
        return x

    for share in (0.0, 0.5):
        direct, _ = sampled(blended, VP, share=share)
        assert isinstance(direct, Direct)
        assert direct.couples_samples == (share > 0)


def test_a_sampler_that_could_never_end_is_stopped() -> None:
    direct, _ = sampled(sample_careful, VP)
    with pytest.raises(ArithmeticError, match="the sample is not finite at sigma"):
        sample(direct, lambda u, level: u * math.nan, start(), noises())


PLUGIN = """
import torch


def sample_careful(model, x, sigma_min, sigma_max, extra_args=None, disable=None, *, rtol=0.05):
    sigma, step = sigma_max, 0.5
    while sigma > sigma_min:
        after = max(sigma * step, sigma_min)
        slope = (x - model(x, sigma * x.new_ones([len(x)]))) / sigma
        euler = x + (after - sigma) * slope
        heun = x + (after - sigma) * (slope + (euler - model(euler, after * x.new_ones([len(x)]))) / after) / 2
        if step > 0.9 or float((heun - euler).abs().max()) < rtol * float(x.abs().max()):
            x, sigma, step = heun, after, step * 0.7
        else:
            step = step ** 0.5
    return x


def sample_cfg_pp(model, x, sigmas, extra_args=None, callback=None, disable=None):
    def hook(arguments):
        return arguments["uncond_denoised"]
    for sigma, after in zip(sigmas, sigmas[1:]):
        denoised = model(x, sigma * x.new_ones([len(x)]), model_options={"sampler_post_cfg_function": [hook]})
        x = denoised + after / sigma * (x - denoised)
    return x


def sample_strange(model, latent):
    return latent
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "mine.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFEXP_PLUGINS", str(folder))
        yield discover()


def test_a_sample_of_an_adaptive_run_depends_on_itself_alone(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    words = ("model=mixture", "scheduler=careful", "num_samples=4", "steps=5")
    whole = run(*words, batch_size=4).folder
    assert "careful chooses its steps for a whole batch: one sample at a time is drawn" in caplog.text
    single = run(*words, batch_size=1).folder
    assert torch.equal(points(whole), points(single))
    assert record(whole)["nfe"] == record(single)["nfe"] > 5


def test_cfg_pp_needs_a_model_without_guidance(compose: Any, catalog: Any, tmp_path: Any) -> None:
    weights = save_unet(tmp_path / "net", tiny_digits_unet())
    words = (f"model.weights={weights}", "scheduler=cfg_pp", "steps=3", "label=1")
    told = "^scheduler=cfg_pp reads the estimate without guidance, which is not at hand; add guidance_scale=1$"
    with pytest.raises(InputError, match=told):
        assemble(compose(*words, "guidance_scale=2"), catalog)
    assemble(compose(*words, "guidance_scale=1"), catalog)


def test_a_sampler_of_no_known_signature_is_named_once(tmp_path: Any, monkeypatch: Any, caplog: Any) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    monkeypatch.setenv("DIFFEXP_PLUGINS", str(tmp_path))
    names = {*discover().of_kind("scheduler")} & {"careful", "cfg_pp", "strange"}
    discover()
    assert names == {"careful", "cfg_pp"}
    (told,) = caplog.messages
    assert told == (
        f"{tmp_path / 'mine.py'}:28: sample_strange(model, latent) is left out: "
        "it has none of the signatures of k-diffusion's samplers"
    )
