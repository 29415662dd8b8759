"""``grid=auto`` with everything that a checkpoint's scheduler config may say: the levels that the class visits."""

import inspect
import itertools
import math
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import diffusers
import diffusers.schedulers
import pytest

import diffexp
from diffexp.catalog.diffusers import CLASSES, TRAINING, WITHOUT_EFFECT
from diffexp.catalog.diffusers_keys import CLIPPING, LEVELS, SOLVER, SPACING, UNIFORM, spoken
from diffexp.catalog.register import registration
from diffexp.certify.equivalents import EQUIVALENTS
from diffexp.components.checkpoints.scheduler_config import read_training
from diffexp.components.sampler import Recipe, bind
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.training import Training
from tests.parity.common import catalog, compiled

LATENT = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
VP: dict[str, dict[str, Any]] = {
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "lu": {"use_lu_lambdas": True},
    "karras_leading": {"use_karras_sigmas": True, "timestep_spacing": "leading"},
    "karras_trailing": {"use_karras_sigmas": True, "timestep_spacing": "trailing"},
    "karras_range": {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0},
    "sigma_min": {"final_sigmas_type": "sigma_min"},
    "karras_sigma_min": {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
    "clipped": {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1},
    "log_linear": {"interpolation_type": "log_linear"},
    "continuous": {"timestep_type": "continuous", "prediction_type": "v_prediction"},
}
FLOWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shift": {"shift": 3.0},
    "terminal": {"shift": 3.0, "shift_terminal": 0.02},
    "karras": {"shift": 3.0, "use_karras_sigmas": True},
    "beta": {"shift": 3.0, "use_beta_sigmas": True},
}
NATIVES = {
    "euler": ("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
    "heun": ("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
    "dpm2": ("KDPM2DiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
    "dpm2_ancestral": ("KDPM2AncestralDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
    "lms": ("LMSDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
    "ddim": ("DDIMScheduler", "FlowMatchEulerDiscreteScheduler"),
    "dpmpp_2m": ("DPMSolverMultistepScheduler",) * 2,
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler",) * 2,
    "dpmpp_3m": ("DPMSolverMultistepScheduler",) * 2,
    "deis": ("DEISMultistepScheduler",) * 2,
    "unipc": ("UniPCMultistepScheduler",) * 2,
}
"""The class of a native scheduler, for VP and for flow models."""


def native(name: str) -> Any:
    return catalog().build("scheduler", {"name": name}).func


def checkpoint(name: str, config: dict[str, Any]) -> Training:
    return read_training({"_class_name": name, **config}, "test")


def visited(name: str, steps: int, training: Training) -> list[tuple[float, float]]:
    """(timestep, sigma / alpha) of the levels."""
    method = bind(native(name), steps=steps, training=training)
    return [(level.timestep, level.ratio) for level in method.levels]


def by_the_class(cls: str, config: dict[str, Any], steps: int) -> Any:
    accepted = inspect.signature(getattr(diffusers, cls).__init__).parameters
    theirs = getattr(diffusers, cls)(**{key: value for key, value in config.items() if key in accepted})
    theirs.set_timesteps(steps)
    return theirs


def table_of(theirs: Any, sigma_to_ratio: Any) -> list[tuple[float, float]]:
    every = theirs.order if isinstance(theirs.order, int) else 1
    if not hasattr(theirs, "sigmas"):
        bars = theirs.alphas_cumprod.double()[theirs.timesteps]
        return list(zip(theirs.timesteps.tolist(), ((1 - bars) / bars).sqrt().tolist()))
    ratios = [sigma_to_ratio(sigma) for sigma in theirs.sigmas.tolist()]
    return list(zip(theirs.timesteps.tolist()[::every], ratios[::every]))


def assert_same(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> None:
    assert [t for t, _ in ours] == pytest.approx([t for t, _ in theirs], abs=1e-3)
    assert [r for _, r in ours] == pytest.approx([r for _, r in theirs], rel=1e-4)


@pytest.mark.parametrize(("name", "case"), itertools.product(NATIVES, VP))
def test_a_vp_checkpoint(name: str, case: str) -> None:
    config, steps = {**LATENT, **VP[case]}, 7
    theirs = by_the_class(NATIVES[name][0], config, steps)
    training = replace(checkpoint("DPMSolverMultistepScheduler", config), clip=None)
    assert_same(visited(name, steps, training), table_of(theirs, lambda sigma: sigma))


def test_natives_name_the_classes_that_they_equal() -> None:
    named = {pair.native: registration(native(pair.native)) for pair in EQUIVALENTS if not pair.difference}
    for pair in EQUIVALENTS:
        if found := named.get(pair.native):
            assert pair.cls in found.traits["diffusers"]


def test_the_example_that_was_reported() -> None:
    training = checkpoint("DPMSolverMultistepScheduler", {**LATENT, "use_karras_sigmas": True})
    for scheduler in (native("dpmpp_2m"), diffusers.DPMSolverMultistepScheduler):
        plan = compiled(scheduler, 6, training)
        assert [row.level.timestep for row in plan.rows] == [999, 837, 594, 249, 30, 0]


@pytest.mark.parametrize("steps", [6, 15])
@pytest.mark.parametrize(("name", "case"), itertools.product(NATIVES, FLOWS))
def test_a_flow_checkpoint(name: str, case: str, steps: int) -> None:
    config = FLOWS[case]
    theirs = by_the_class(NATIVES[name][1], {**config, **FLOW, "flow_shift": config.get("shift", 1.0)}, steps)
    if max(theirs.sigmas) > 1:  # karras and beta sigmas of betas, which are no levels of a flow
        theirs = by_the_class("FlowMatchEulerDiscreteScheduler", config, steps)
    training = checkpoint("FlowMatchEulerDiscreteScheduler", config)
    ratios = table_of(theirs, lambda sigma: sigma / (1 - sigma) if sigma < 1 else math.inf)
    assert_same(visited(name, steps, training), ratios)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.name.startswith("diffexp")]


def every_key() -> dict[str, set[str]]:
    """All keys of the scheduler configs of the installed diffusers, each with its classes."""
    keys: dict[str, set[str]] = {}
    for module in iter_modules(diffusers.schedulers.__path__):
        try:
            found = import_module(f"diffusers.schedulers.{module.name}")
        except ImportError:  # without torchsde
            continue
        for name, cls in vars(found).items():
            if inspect.isclass(cls) and cls.__module__ == found.__name__ and hasattr(cls, "set_timesteps"):
                for key in list(inspect.signature(cls.__init__).parameters)[1:]:
                    keys.setdefault(key, set()).add(name)
    return keys


ELSEWHERE = {
    *("alpha_cum_end", "alpha_cum_start", "gamma_cum_end", "gamma_cum_start", "num_vec_classes"),
    *("block_length", "editing_threshold", "minimal_topk", "threshold", "entropy_bound", "t_max", "t_min"),
    *("corrector_k", "corrector_selection", "corrector_selection_tau", "corrector_steps", "num_inference_steps"),
    *("mask_token_id", "masking_schedule", "correct_steps", "sampling_eps", "snr", "s", "scaler", "kwargs"),
    *("gamma", "stage_range", "stages", "scheduler_type", "eps", "final_step_size_scale", "n_grid"),
    *("num_policy_substeps", "noise_mode", "schedule_mode", "t_lim_ode", "t_lim_ode_below"),
    *("tail_step_multiplier", "tail_steps", "tsr_k", "tsr_sigma"),
}
"""Keys of classes that no option stands for; a checkpoint that has one is told that it is not used."""


def test_every_key_of_diffusers_is_known() -> None:
    """A new version of diffusers with a new key fails here: it belongs into one of the tables."""
    known = {*TRAINING, *WITHOUT_EFFECT, *CLIPPING, *UNIFORM, *LEVELS, *SOLVER}
    found = every_key()
    assert found.keys() - known == ELSEWHERE
    listed = {name for _, name in CLASSES.values()}
    assert not {key for key in ELSEWHERE if found[key] & listed} - {"kwargs"}
    assert set(SPACING) < set(LEVELS)


def test_the_defaults_of_diffusers_change_nothing() -> None:
    exceptions = {"skip_prk_steps", "lower_order_final", "solver_p", "eta", "sigma_min", "sigma_max", "variance_type"}
    for _, name in CLASSES.values():
        for key, parameter in inspect.signature(getattr(diffusers, name).__init__).parameters.items():
            if key in (LEVELS.keys() | SOLVER.keys()) - exceptions and parameter.default is not None:
                assert not spoken({key: parameter.default}, {**LEVELS, **SOLVER}), (name, key)


OTHER_VALUES = {
    **{key: True for key in LEVELS if key.startswith("use_") and key != "use_dynamic_shifting"},
    "interpolation_type": "log_linear",
    "lambda_min_clipped": -4.0,
    "final_sigmas_type": "sigma_min",
    "timestep_type": "continuous",
    "sigma_min": 0.05,
    "sigma_max": 10.0,
    "rho": 5.0,
    "invert_sigmas": True,
    "original_inference_steps": 20,
    "shift_terminal": 0.1,
}


@pytest.mark.parametrize("key", OTHER_VALUES)
@pytest.mark.parametrize("name", ["euler", "ddim", "dpmpp_2m", "unipc", "pndm", "lcm", "restart"])
def test_a_key_has_its_effect_or_is_named(name: str, key: str, caplog: pytest.LogCaptureFixture) -> None:
    training = checkpoint("DPMSolverMultistepScheduler", {**LATENT, key: OTHER_VALUES[key]})
    recipe = Recipe(native(name), 6, replace(training, clip=None))
    plain = Recipe(native(name), 6, replace(training, clip=None, scheduler_config={**LATENT, "_class_name": "x"}))
    recipe.warn_of_ignored_config()
    same = recipe.sampler.levels == plain.sampler.levels
    end = recipe.part(0).end.sigma
    effect = not same or end > 0 or (key in ("timestep_type", "sigma_min", "sigma_max") and name == "euler")
    assert effect or any(f" {key}=" in line for line in told(caplog)), told(caplog)
    assert len(told(caplog)) <= 1


def test_what_a_solver_is_not_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    config = {**LATENT, "algorithm_type": "sde-dpmsolver++", "solver_order": 3, "solver_type": "heun", "novel": 1}
    training = checkpoint("DPMSolverMultistepScheduler", config)
    diffexp.compile("dpmpp_2m", steps=5, model=training)
    (line,) = told(caplog)
    assert line == (
        "dpmpp_2m does not use novel=1, algorithm_type=sde-dpmsolver++, solver_order=3, solver_type=heun "
        "of the checkpoint's scheduler config"
    )


@pytest.mark.parametrize("name", ["dpmpp_2m", "euler", "diffusers/dpmsolver_multistep", "diffusers/euler", "pndm"])
def test_a_config_with_nothing_special_is_quiet(name: str, caplog: pytest.LogCaptureFixture) -> None:
    for cls in ("PNDMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "DDIMScheduler"):
        made = getattr(diffusers, cls)(**LATENT, **({"skip_prk_steps": True} if cls == "PNDMScheduler" else {}))
        training = replace(checkpoint(cls, dict(made.config)), clip=None)
        diffexp.compile(name, steps=5, model=training)
    assert told(caplog) == []


@pytest.mark.parametrize("name", ["dpmpp_2m", "euler"])
def test_a_grid_that_is_chosen_goes_before_the_config(name: str) -> None:
    """The same levels for the function and the class, whatever the checkpoint says about its own."""
    cls = getattr(diffusers, NATIVES[name][0])
    for grid in ("leading", "karras", "exponential", "trailing"):
        plain = replace(checkpoint(NATIVES[name][0], LATENT), clip=None)
        for said in ({"use_beta_sigmas": True}, {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}):
            training = replace(plain, scheduler_config={**plain.scheduler_config, **said})
            assert compiled(cls, 6, training, grid).difference(compiled(cls, 6, plain, grid)) == 0
            assert compiled(native(name), 6, training, grid) == compiled(native(name), 6, plain, grid)


def test_the_noise_schedule_of_cogvideox() -> None:
    config = {**LATENT, "snr_shift_scale": 3.0, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    theirs: Any = diffusers.CogVideoXDDIMScheduler(**config)
    training = replace(checkpoint("CogVideoXDDIMScheduler", config), clip=None)
    assert isinstance(training.schedule, VPSchedule)
    assert training.schedule.alphas_cumprod == pytest.approx(theirs.alphas_cumprod.tolist(), abs=1e-6)
    for scheduler in (diffusers.CogVideoXDDIMScheduler, diffusers.DDIMScheduler):
        assert compiled(scheduler, 5, training).difference(compiled(native("ddim"), 5, training)) < 1e-4
