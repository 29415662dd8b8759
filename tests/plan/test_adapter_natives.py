"""A PlanScheduler of one of our functions does what its class in diffusers does, also with edited latents."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from diffexp.certify.equivalents import EQUIVALENTS, DiffusersEquivalent
from diffexp.components.sampler import Recipe, compile_recipe
from diffexp.plan.adapter import PlanScheduler
from diffexp.plan.execute import execute
from diffexp.plan.handed_in import MOST_KEPT, formulas_of
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training
from tests.parity.common import catalog, training_of

STEPS = 7
LATENT = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
EQUAL = [pair for pair in EQUIVALENTS if not pair.difference]
OTHER_MODELS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("dpmpp_2m", "EDMDPMSolverMultistepScheduler", {}, {}),
    ("dpmpp_2m_sde", "EDMDPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}),
    ("dpmpp_2m", "DPMSolverMultistepScheduler", FLOW, {}),
    ("unipc", "UniPCMultistepScheduler", FLOW, {}),
    ("heun", "FlowMatchHeunDiscreteScheduler", {"shift": 3.0}, {}),
    ("heun", "HeunDiscreteScheduler", {"prediction_type": "v_prediction", "clip_sample": True}, {}),
    ("dpm2", "KDPM2DiscreteScheduler", {"prediction_type": "v_prediction"}, {}),
    ("lms", "LMSDiscreteScheduler", {"prediction_type": "v_prediction"}, {}),
    ("deis", "DEISMultistepScheduler", {"prediction_type": "v_prediction"}, {}),
    ("edm_stochastic", "HeunDiscreteScheduler", {}, {"s_churn": 0.0}),
]
"""(native, class, the class's options, the native's), with tables that are equal."""


def native(name: str) -> Any:
    return catalog().build("scheduler", {"name": name}).func


def class_of(pair: DiffusersEquivalent) -> Any:
    return getattr(diffusers, pair.cls).from_config(LATENT, **pair.theirs)


def scheduler_of(function: Any, theirs: Any, options: Any, *, unscaled: bool = False) -> PlanScheduler:
    """As the loop of pipelines makes it; without ``unscaled`` in the function's own scaling of x."""
    recipe = Recipe(function, STEPS, training_of(theirs), options=options)

    def plan(steps: int, **visit: Any) -> Plan:
        found = compile_recipe(recipe, steps, **visit)
        return found.unscaled() if unscaled else found

    return PlanScheduler(plan)


def tensor(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def drawn(scheduler: Any, begin: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> Tensor:
    """Network inputs, and the output, of a loop whose caller blends noise into the latents before every step."""
    scheduler.set_timesteps(STEPS)
    if begin:
        scheduler.set_begin_index(begin)
    if "generator" in inspect.signature(scheduler.step).parameters:
        options["generator"] = torch.Generator().manual_seed(5)
    input_of = getattr(scheduler, "scale_model_input", lambda x, t: x)
    found: list[Tensor] = []
    x = None
    for k, t in enumerate(scheduler.timesteps[begin:]):
        scale = float(input_of(torch.ones(1), t))  # edits are the same as the network sees them
        x = tensor(0, dtype) / scale if x is None else x
        x = 0.7 * x + 0.3 / scale * tensor(k + 1, dtype)
        found.append(x * scale)
        x = scheduler.step(torch.sin(1.3 * found[-1]), t, x, **options).prev_sample
    return torch.stack([*found, x])  # pyright: ignore[reportArgumentType]


def assert_same(name: str, ours: PlanScheduler, theirs: Any, begin: int = 0, **options: Any) -> None:
    # SDE variants of the class draw their noise in float32, whatever the latents are in.
    dtype = torch.float32 if name == "dpmpp_2m_sde" else torch.float64
    found, wanted = drawn(ours, begin, dtype), drawn(theirs, begin, dtype, **options)
    if name == "deis":  # its class leaves the noise of the first training timestep in
        found, wanted = found[:-1], wanted[:-1]
    assert found.shape == wanted.shape and wanted.isfinite().all()
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("pair", EQUAL, ids=lambda pair: f"{pair.native}-{'-'.join(map(str, pair.options.values()))}")
def test_edited_latents_as_the_class(pair: DiffusersEquivalent, unscaled: bool) -> None:
    theirs = class_of(pair)
    ours = scheduler_of(native(pair.native), theirs, pair.options, unscaled=unscaled)
    options = {"eta": pair.theirs["eta"]} if "eta" in pair.theirs else {}
    assert_same(pair.native, ours, theirs, **options)


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize(("name", "cls", "theirs", "options"), OTHER_MODELS)
def test_edited_latents_of_other_models(
    name: str, cls: str, theirs: dict[str, Any], options: dict[str, Any], unscaled: bool
) -> None:
    scheduler = getattr(diffusers, cls)(**theirs)
    assert_same(name, scheduler_of(native(name), scheduler, options, unscaled=unscaled), scheduler)


# The class of LMS has weights for outputs that it has not seen there.
@pytest.mark.parametrize("name", ["heun", "dpm2", "dpm2_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "deis", "unipc"])
def test_edited_latents_from_the_middle(name: str) -> None:
    pair = next(pair for pair in EQUAL if pair.native == name)
    theirs = class_of(pair)
    ours = scheduler_of(native(name), theirs, pair.options)
    assert_same(name, ours, theirs, begin=2)
    assert_same(name, ours, theirs)


def test_edited_latents_with_a_corrector_that_is_left_out() -> None:
    theirs = diffusers.UniPCMultistepScheduler(solver_order=3, disable_corrector=[1])
    assert_same("unipc", scheduler_of(native("unipc"), theirs, {"order": 3, "disable_corrector": (1,)}), theirs)


def plan_of(function: Any, steps: int = 40, **options: Any) -> Plan:
    return compile_recipe(Recipe(function, steps, Training(VPSchedule.from_betas()), options=options), steps)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unipc", {"order": 4}),
        ("pndm", {"start": "runge_kutta"}),
        ("lms", {}),
        ("edm_stochastic", {}),
        ("dpmpp_3m", {}),
    ],
)
def test_without_edits_it_is_what_the_rows_are(name: str, options: dict[str, Any]) -> None:
    plan = plan_of(native(name), **options)
    found = formulas_of(plan)
    assert found is not None and max(len(formula.kept) for formula in found) <= MOST_KEPT
    draws = [tensor(seed) for seed in range(plan.draws)]
    mine, rows = iter(draws), iter(draws)
    x, kept = tensor(99), []
    for formula, row in zip(found, plan.rows):
        x, after = formula([x, torch.sin(row.scale * x + row.level.alpha), *kept], lambda _: next(mine))
        kept = after["kept"]
    wanted = execute(plan, lambda u, level: torch.sin(u + level.alpha), tensor(99), lambda: next(rows))
    assert (x - wanted).abs().max() <= 1e-9 * wanted.abs().max()


def on_a_copy(denoise: Denoiser, x: Tensor, levels: Levels, noise: Callable[[], Tensor]) -> Tensor:
    """Evaluates the network on something that it does not go on with."""
    for here, there in levels.pairs():
        first = denoise(x.clone(), here)
        middle = there.sigma / here.sigma * x + (there.alpha - there.sigma / here.sigma * here.alpha) * first
        x = 0.5 * (x + middle) if there.sigma else middle
        x = x + 0.1 * (denoise(x.clone(), there) - first) if there.sigma else x
    return x


def test_a_function_that_evaluates_on_a_copy_runs_by_its_rows() -> None:
    plan = plan_of(on_a_copy)
    assert plan.depth and formulas_of(plan) is None
    assert formulas_of(replace(plan_of(native("heun")), name="without its code")) is None
    scheduler = PlanScheduler(lambda steps: plan)
    scheduler.set_timesteps(40)
    x = tensor(0)
    for t in scheduler.timesteps:
        x = scheduler.step(torch.sin(x), t, x).prev_sample
    wanted = execute(plan, lambda u, level: torch.sin(u), tensor(0), lambda: tensor(1))
    assert (x - wanted).abs().max() <= 1e-12
