"""Plans: tracing, tables, execution, and what is no table."""

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import diffexp
from diffexp.components import grids
from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import bind, build_sampler
from diffexp.components.schedulers.ddim import ddim
from diffexp.components.schedulers.ddpm import ddpm
from diffexp.components.schedulers.euler import euler
from diffexp.errors import InputError
from diffexp.plan.compile import Direct, compile_method, run_directly, sample
from diffexp.plan.execute import History, advance, clamped, execute, fused_step
from diffexp.plan.levels import Level, Levels
from diffexp.plan.method import Denoiser
from diffexp.plan.predictions import Clip, DynamicThreshold, Prediction
from diffexp.plan.row import Clamp, Row
from diffexp.plan.schedules import FlowSchedule, VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.trace import NotLinear
from diffexp.plan.training import Training

TRAINING = Training(VPSchedule.from_betas())
CLIPPED = Training(TRAINING.schedule, clip=Clip(0.5))
SHAPE = (2, 3, 8, 8)


def network(u: Tensor, level: Level) -> Tensor:
    return torch.sin(1.3 * u + 0.002 * level.timestep) + 0.2 * u.roll(1, dims=-1)


def seeded_noise(dtype: torch.dtype = torch.float64) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(5)
    return lambda: torch.randn(SHAPE, generator=generator, dtype=dtype)


def both_ways(scheduler: Any, training: Training = TRAINING, steps: int = 12, **options: Any) -> tuple[Tensor, Tensor]:
    """The output of a scheduler's plan and of its own code, from the same start and noise."""
    method = bind(scheduler, steps=steps, training=training, options=options)
    start = seeded_noise()() * method.start_std
    planned = execute(compile_method(method), network, start, seeded_noise())
    return planned, run_directly(method, network, start, seeded_noise())


# Methods of every kind a table has to express


def heun(denoise, x, levels, noise):
    """Two evaluations a step: the second row of a step needs the x and m of the first."""
    for here, there in levels.pairs():
        slope = (x - denoise(x, here) * here.alpha) / here.sigma
        predicted = there.alpha * (x / here.alpha + (there.ratio - here.ratio) * slope)
        if there.sigma == 0:
            x = predicted
        else:
            second = (predicted - denoise(predicted, there) * there.alpha) / there.sigma
            x = there.alpha * (x / here.alpha + (there.ratio - here.ratio) * (slope + second) / 2)
    return x


def adams_bashforth(denoise, x, levels, noise, *, order: int = 4):
    """A linear multistep method that reads up to ``order`` past outputs."""
    weights = {1: [1], 2: [1.5, -0.5], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}
    past: list[Tensor] = []
    for here, there in levels.pairs():
        past.insert(0, denoise.predict(x, here)[1])
        del past[order:]
        slope = sum(w * eps for w, eps in zip(weights[len(past)], past))
        x = there.alpha * (x / here.alpha + (there.ratio - here.ratio) * slope)
    return x


def churned(denoise, x, levels, noise):
    """Noise before the first evaluation and between evaluations."""
    for here, there in levels.pairs():
        x = x + 0.1 * noise()
        x0 = denoise(x, here)
        x = there.alpha * x0 + there.sigma * (x - here.alpha * x0) / here.sigma
    return x


def own_noise(denoise, x, levels, noise):
    """Draws with torch instead of what it is handed."""
    for here, there in levels.pairs():
        x = there.alpha * denoise(x, here) + there.sigma * torch.randn_like(x)
    return x


def clamps_of_every_kind(denoise, x, levels, noise):
    for here, there in levels.pairs():
        _, eps = denoise.predict(x, here)
        x0 = (x - here.sigma * eps) / here.alpha
        inner = (0.5 * x0).clamp_(-0.9, 0.9)
        x = (
            there.alpha * (inner + torch.clip(eps, min=-2.0) * 0.1)
            + there.sigma * (eps.clamp_max(2.0) + eps.clamp_min(-1.0)) / 2
        )
    return x


@pytest.mark.parametrize(
    "training",
    [
        TRAINING,
        CLIPPED,
        Training(TRAINING.schedule, Prediction.V, Clip()),
        Training(TRAINING.schedule, Prediction.FLOW),
    ],
)
@pytest.mark.parametrize(
    "scheduler", [ddpm, ddim, euler, heun, adams_bashforth, churned, own_noise, clamps_of_every_kind]
)
@pytest.mark.parametrize("steps", [1, 2, 12])
def test_a_plan_is_the_code_it_came_from(scheduler: Any, training: Training, steps: int) -> None:
    planned, direct = both_ways(scheduler, training, steps)
    assert (planned - direct).abs().max() <= 1e-10 * direct.abs().max().clamp(min=1)


def test_rows_are_as_short_as_can_be() -> None:
    depths = {
        f.__name__: compile_method(bind(f, steps=10, training=TRAINING)).depth
        for f in (ddpm, ddim, euler, heun, adams_bashforth)
    }
    assert depths == {"ddpm": 0, "ddim": 0, "euler": 0, "heun": 1, "adams_bashforth": 3}
    plan = compile_method(bind(heun, steps=10, training=TRAINING))
    assert plan.nfe == 19 and plan.deterministic
    assert compile_method(bind(ddpm, steps=10, training=TRAINING)).draws == 9


def test_ddim_is_euler_and_not_ddpm() -> None:
    for training in (TRAINING, Training(TRAINING.schedule, Prediction.V)):
        plan = diffexp.compile("ddim", steps=20, model=training)
        assert plan.difference(diffexp.compile("euler", steps=20, model=training)) < 1e-13
        assert plan.difference(diffexp.compile("ddpm", steps=20, model=training)) > 1e-2
        assert plan.difference(diffexp.compile("ddim", steps=21, model=training)) == math.inf


def test_ddim_at_eta_1_is_ddpm() -> None:
    """Song et al. 2020, section 4.1; but for the noise of 1e-10 that diffusers adds in no last step here (t = 0)."""
    noisy = diffexp.compile("ddim", steps=20, eta=1.0)
    ancestral = diffexp.compile("ddpm", steps=20)
    assert max(abs(a.x[0] - b.x[0]) for a, b in zip(noisy.rows, ancestral.rows)) < 1e-12
    assert max(abs(a.m[0] - b.m[0]) for a, b in zip(noisy.rows, ancestral.rows)) < 1e-12
    assert [a.z[0] for a in noisy.rows[:-1]] == pytest.approx([b.z[0] for b in ancestral.rows[:-1]])


def test_constant_stride_only_matters_off_the_grid() -> None:
    on, off = ({"steps": 7, "grid": g} for g in ("leading", "linspace"))
    assert diffexp.compile("ddim", **on).difference(diffexp.compile("ddim", **on, constant_stride=False)) == 0
    assert diffexp.compile("ddim", **off).difference(diffexp.compile("ddim", **off, constant_stride=False)) > 1e-3


def test_the_table_says_what_the_paper_says() -> None:
    """DDIM eq. 12 by hand."""
    plan = diffexp.compile("ddim", steps=10)
    here, there = plan.rows[3].level, plan.rows[4].level
    assert plan.rows[3].x[0] == pytest.approx(there.alpha / here.alpha, rel=1e-14)
    assert plan.rows[3].m[0] == pytest.approx(there.sigma - there.alpha * here.ratio, rel=1e-12)


def test_a_clip_becomes_one_clamp_a_row() -> None:
    plan = compile_method(bind(ddim, steps=5, training=CLIPPED))
    for row in plan.rows:
        (clamp,) = row.clamps
        assert (clamp.low, clamp.high) == (-0.5, 0.5)
        assert (clamp.x, clamp.m) == pytest.approx(Prediction.EPSILON.clean(row.level))


@given(st.lists(st.floats(-2, 2), min_size=6, max_size=6), st.floats(-1, 0), st.floats(0.01, 1))
def test_the_fused_step_is_the_general_one(c: list[float], low: float, high: float) -> None:
    x, m, z = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    clamp = Clamp(c[0], c[1], low, high)
    for row in (
        Row(Level(0, 1, 0), 1.0, (c[2],), (c[3],), ((c[4],),), (c[5],), (clamp,)),
        Row(Level(0, 1, 0), 1.0, (c[2],), (c[3],), (), (c[5],)),
    ):
        history = History.empty()
        history.push(x, m, clamped(row, x, m), 0)
        fused = fused_step(row)
        if fused is not None:
            assert torch.allclose(fused(x, m, lambda: z), advance(row, history, lambda: z), atol=1e-12)
    assert fused_step(Row(Level(0, 1, 0), 1.0, (1.0, 2.0), (1.0,))) is None


def test_execution_leaves_its_inputs_alone_and_repeats() -> None:
    plan = compile_method(bind(ddpm, steps=6, training=CLIPPED))
    start = seeded_noise()()
    before = start.clone()
    first = execute(plan, network, start, seeded_noise())
    assert torch.equal(start, before)
    assert torch.equal(execute(plan, network, start, seeded_noise()), first)


def test_batches_do_not_mix() -> None:
    plan = compile_method(bind(adams_bashforth, steps=6, training=CLIPPED))
    start = seeded_noise()()
    together = execute(plan, network, start, seeded_noise())
    alone = torch.cat([execute(plan, network, row.unsqueeze(0), seeded_noise()) for row in start])
    assert torch.allclose(together, alone, atol=1e-12)


# What is no table


def adaptive(denoise, x, levels, noise):
    """Its step depends on the data."""
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        weight = 0.9 if x0.abs().mean() > 0.3 else 1.1
        x = there.alpha * x0 * weight + there.sigma * (x - here.alpha * x0) / here.sigma
    return x


def mixing(denoise, x, levels, noise):
    """Lets the samples of a batch see each other."""
    for here, there in levels.pairs():
        x = there.alpha * denoise(x, here) + there.sigma * (x - x.mean(dim=0, keepdim=True))
    return x


THRESHOLDED = Training(TRAINING.schedule, clip=DynamicThreshold(0.9, 1.5))


@pytest.mark.parametrize(("scheduler", "training"), [(adaptive, TRAINING), (mixing, TRAINING), (ddim, THRESHOLDED)])
def test_what_is_not_linear_runs_directly_and_says_so(
    scheduler: Any, training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sampler = build_sampler(scheduler, steps=8, training=training)
    assert isinstance(sampler, Direct)
    (line,) = caplog.messages
    assert scheduler.__name__ in line and "directly" in line
    start = seeded_noise()()
    direct = sample(sampler, network, start, seeded_noise())
    expected = scheduler(
        Denoiser(lambda x, u, level: network(u, level), training),
        start,
        Grid().levels(training, 8),
        seeded_noise(),
    )
    if scheduler is not ddim:  # ddim is a discrete method: its start and levels are rounded first
        assert torch.allclose(direct, expected)
    assert direct.isfinite().all()
    with pytest.raises(NotLinear):
        diffexp.compile(scheduler, steps=8, model=training)


def test_a_mistake_in_a_scheduler_surfaces_when_it_runs() -> None:
    def broken(denoise, x, levels, noise):
        return undefined_name  # noqa: F821  # pyright: ignore

    sampler = build_sampler(broken, steps=3, training=TRAINING)
    assert isinstance(sampler, Direct) and "NameError" in sampler.reason
    with pytest.raises(NameError):
        sample(sampler, network, seeded_noise()(), seeded_noise())


# The three ways to write a scheduler


def test_a_k_diffusion_function_runs_as_it_is() -> None:
    def sample_euler_ancestral(
        model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
    ):
        extra_args = {} if extra_args is None else extra_args
        noise_sampler = (lambda sigma, sigma_next: torch.randn_like(x)) if noise_sampler is None else noise_sampler
        s_in = x.new_ones([x.shape[0]])
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * s_in, **extra_args)
            variance = sigmas[i + 1] ** 2 * (sigmas[i] ** 2 - sigmas[i + 1] ** 2) / sigmas[i] ** 2
            sigma_up = min(sigmas[i + 1], eta * variance**0.5)
            sigma_down = (sigmas[i + 1] ** 2 - sigma_up**2) ** 0.5
            sigma = sigmas[i].reshape(1, 1, 1, 1).expand(x.shape[0], 1, 1, 1)
            x = x + (x - denoised) / sigma * (sigma_down - sigmas[i])
            if sigmas[i + 1] > 0:
                x = x + noise_sampler(sigmas[i], sigmas[i + 1]) * s_noise * sigma_up
        return x

    from diffusers import EulerAncestralDiscreteScheduler

    plan = diffexp.compile(sample_euler_ancestral, steps=15, grid="linspace")
    theirs = diffexp.compile(EulerAncestralDiscreteScheduler(beta_start=1e-4, beta_end=0.02), steps=15)
    assert plan.difference(theirs) < 2e-6
    assert (
        diffexp.compile(sample_euler_ancestral, steps=15, eta=0.0).difference(
            diffexp.compile("euler", steps=15, grid=Grid("x", grids.leading))
        )
        < 1e-2
    )


def test_a_k_diffusion_function_runs_on_flow_models() -> None:
    def sample_steps(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for sigma, after in zip(sigmas, sigmas[1:]):
            x = x + (x - model(x, sigma * x.new_ones([len(x)]))) / sigma * (after - sigma)
        return x

    flow = Training(FlowSchedule(shift=3.0), Prediction.FLOW, spacing="flow")
    assert diffexp.compile(sample_steps, steps=7, model=flow).difference(
        diffexp.compile("euler", steps=7, model=flow)
    ) == pytest.approx(0, abs=1e-13)


def test_noise_that_never_counts_is_not_drawn() -> None:
    @torch.no_grad()
    def sample_churned(model, x, sigmas, extra_args=None, callback=None, disable=None, s_churn=0.0, noise_sampler=None):
        assert noise_sampler is not None  # also through the decorator
        for sigma, after in zip(sigmas, sigmas[1:]):
            x = x + s_churn * torch.randn_like(x)
            x = x + (x - model(x, sigma * x.new_ones([len(x)]))) / sigma * (after - sigma)
        return x

    assert diffexp.compile(sample_churned, steps=4).draws == 0
    churned = diffexp.compile(sample_churned, steps=4, s_churn=0.1)
    assert churned.draws == 4 and len(churned.start_z) == 1


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x,)])
def test_anyones_class_is_bound_to_the_model(wrap: Callable[[Tensor], Any]) -> None:
    """In the manner of diffusers, without its base classes: what it can take of the model's config it is given."""

    class Ddim:
        def __init__(self, trained_betas=None, num_train_timesteps=1000, gain=1.0):
            self.alphas_cumprod = torch.cumprod(1 - torch.tensor(trained_betas, dtype=torch.float64), 0)
            self.gain = gain

        def set_timesteps(self, num_inference_steps):
            self.stride = len(self.alphas_cumprod) // num_inference_steps
            self.timesteps = torch.arange(num_inference_steps).flip(0) * self.stride

        def step(self, model_output, timestep, sample):
            now, before = self.alphas_cumprod[timestep], timestep - self.stride
            after = self.alphas_cumprod[before] if before >= 0 else torch.tensor(1.0)
            x0 = (sample - (1 - now) ** 0.5 * model_output) / now**0.5
            return wrap(self.gain * after**0.5 * x0 + (1 - after) ** 0.5 * model_output)

    training = Training(VPSchedule.from_betas(beta_end=0.03))
    assert (
        diffexp.compile(Ddim, steps=8, model=training).difference(diffexp.compile("ddim", steps=8, model=training))
        < 1e-9
    )
    assert (
        diffexp.compile(Ddim, steps=8, model=training, gain=0.5).difference(
            diffexp.compile("ddim", steps=8, model=training)
        )
        > 0.1
    )
    with pytest.raises(InputError, match="no option 'gian'; did you mean 'gain'"):
        diffexp.compile(Ddim, steps=8, model=training, gian=0.5)


def test_a_plan_may_be_returned_directly() -> None:
    def halving(levels: Levels, *, factor: float = 0.5) -> Plan:
        return Plan(tuple(Row(level, 1.0, (factor,), (0.0,)) for level in levels[:-1]))

    sampler = build_sampler(halving, steps=3, training=TRAINING, options={"factor": 0.25})
    assert isinstance(sampler, Plan)
    assert torch.allclose(execute(sampler, network, torch.ones(SHAPE), seeded_noise()), torch.full(SHAPE, 0.25**3))


def test_unscaled_plans_keep_the_output() -> None:
    from diffusers import EulerDiscreteScheduler

    plan = diffexp.compile(EulerDiscreteScheduler(), steps=9)
    plain = plan.unscaled()
    z = seeded_noise()()
    scaled = execute(plan, network, z * plan.start_std, seeded_noise())
    assert torch.allclose(scaled, execute(plain, network, z * plain.start_std, seeded_noise()), atol=1e-9)
    assert {row.scale for row in plain.rows} == {1.0} and plan.difference(plain) < 1e-14


def test_steps_and_options_are_checked() -> None:
    with pytest.raises(InputError, match="at least 1"):
        diffexp.compile("ddim", steps=0)
    with pytest.raises(InputError, match="1000 timesteps"):
        diffexp.compile("ddim", steps=1001)
    with pytest.raises(InputError, match="did you mean 'ddim'"):
        diffexp.compile("ddimm", steps=10)
    with pytest.raises(InputError, match="eta"):
        diffexp.compile("ddim", steps=10, etta=1.0)
