"""Every scheduler class of diffusers that is an option, with options drawn at random, against the class itself.

The reference is the loop that anyone writes around a scheduler of diffusers; nothing of diffexp takes part in it.
"""

import contextlib
import functools
import inspect
import itertools
import logging
import math
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import Tensor

import diffexp
from diffexp.catalog import diffusers as diffusers_options
from diffexp.catalog.diffusers import CLASSES, PREFIX, class_entry
from diffexp.catalog.quirks import QUIRKS, Quirks, quirks_of
from diffexp.components import grids
from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import build_sampler
from diffexp.errors import InputError
from diffexp.plan.compile import Direct
from diffexp.plan.execute import execute
from diffexp.plan.moments import gaussian_output
from diffexp.plan.predictions import Clip, Preconditioned, Prediction
from diffexp.plan.schedules import FlowSchedule, VESchedule, VPSchedule
from diffexp.plan.trace import NotLinear
from diffexp.plan.training import Training

TRAINING = Training(VPSchedule.from_betas())
SHAPE = (2, 3, 4, 4)
NAMES = sorted(CLASSES)
RANGES = {
    "solver_order": st.integers(1, 3),
    "predictor_order": st.integers(1, 4),
    "corrector_order": st.integers(1, 4),
    "order": st.integers(1, 4),
    "eta": st.floats(0, 1),
    "rho": st.floats(1, 10),
    "sigma_min": st.floats(0.002, 0.2),
    "sigma_max": st.floats(5, 80),
    "shift": st.floats(0.5, 8),
    "flow_shift": st.floats(0.5, 8),
    "shift_terminal": st.floats(0.01, 0.3),
    "mu": st.floats(0.1, 2),
    "s_churn": st.floats(0, 3),
    "s_noise": st.floats(0.5, 1.5),
    "s_tmin": st.floats(0, 1),
    "s_tmax": st.floats(1, 100),
    "clip_sample_range": st.floats(0.5, 2),
    "lambda_min_clipped": st.floats(-8, -3),
    "steps_offset": st.integers(0, 1),
    "disable_corrector": st.lists(st.integers(0, 5), max_size=3),
    "timestep_scaling": st.floats(1, 20),
    "original_inference_steps": st.integers(20, 100),
    "timestep_spacing": st.sampled_from(["linspace", "leading", "trailing"]),
    "prediction_type": st.sampled_from(["epsilon", "v_prediction", "sample"]),
    "algorithm_type": st.sampled_from(["data_prediction", "noise_prediction"]),
    "interpolation_type": st.sampled_from(["linear", "log_linear"]),
    "strength": st.just(1.0),
}
"""What to draw for options whose type alone would give nonsense."""
TRAININGS = {
    "prediction_type": st.sampled_from(["epsilon", "v_prediction", "sample"]),
    "beta_schedule": st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"]),
    "num_train_timesteps": st.sampled_from([1000, 500]),
    "use_flow_sigmas": st.booleans(),
    "rescale_betas_zero_snr": st.booleans(),
}
"""Options that a class describes its network with; here there is no model to contradict them."""
DATA_DEPENDENT = ("thresholding", "dynamic_thresholding_ratio", "sample_max_value")
"""Dynamic thresholding is no table; it has a test of its own."""


def _is_learned(option: Any) -> bool:
    """Whether it says no more than that the network puts out variances too."""
    return option.name == "variance_type" and option.effective_default is None


def drawn(option: Any) -> st.SearchStrategy[Any]:
    """Values of an option."""
    if option.type.base == "literal":
        return st.sampled_from([choice for choice in option.type.choices if "learned" not in choice])
    if option.type.base == "bool":
        return st.booleans()
    return RANGES[option.name]


@st.composite
def choices(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """A few options of a class, at most one kind of sigmas among them."""
    entry = class_entry("scheduler", PREFIX + name)
    assert entry is not None
    options = [one for one in entry.options if one.name not in DATA_DEPENDENT and not _is_learned(one)]
    some = draw(st.lists(st.sampled_from(options), unique_by=lambda one: one.name, max_size=5)) if options else []
    given = {one.name: draw(drawn(one)) for one in some}
    kinds = [key for key in given if key.startswith("use_") and key.endswith(("sigmas", "lambdas"))]
    given = {key: value for key, value in given.items() if key not in kinds[1:]}
    if given.get("use_dynamic_shifting"):
        given["mu"] = draw(RANGES["mu"])
    taken = inspect.signature(getattr(diffusers, CLASSES[name][1]).__init__).parameters
    given |= {key: draw(values) for key, values in TRAININGS.items() if key in taken and draw(st.booleans())}
    if given.get("use_flow_sigmas"):
        given["prediction_type"] = "flow_prediction"
    if given.get("prediction_type", "epsilon") == "epsilon":  # which says nothing where there is no signal
        given.pop("rescale_betas_zero_snr", None)
    return given


def network(u: Tensor, t: float) -> Tensor:
    return torch.tanh(0.8 * u + 0.5 * math.sin(0.01 * t)) + 0.1 * u.roll(1, dims=-1)


def seeded() -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(3)
    return lambda: torch.randn(SHAPE, generator=generator, dtype=torch.float64)


def own_loop(cls: Any, steps: int, options: dict[str, Any]) -> Tensor:
    """The class as its documentation uses it, in float64."""
    config = {k: v for k, v in options.items() if k in inspect.signature(cls.__init__).parameters}
    rest = {k: v for k, v in options.items() if k not in config}
    of_set = {k: v for k, v in rest.items() if k in inspect.signature(cls.set_timesteps).parameters}
    of_step = {k: v for k, v in rest.items() if k not in of_set}
    scheduler = cls(**config)
    scheduler.set_timesteps(steps, **of_set)
    for key, value in vars(scheduler).items():
        if isinstance(value, Tensor) and value.dtype == torch.float32 and key != "timesteps":
            setattr(scheduler, key, value.double())
    noise = seeded()
    x = noise() * float(getattr(scheduler, "init_noise_sigma", 1.0))
    last: list[Any] = [None, None]
    with mock.patch.object(sys.modules[cls.__module__], "randn_tensor", create=True) as drawn_noise:
        drawn_noise.side_effect = lambda *_, **__: noise()
        for t in scheduler.timesteps:
            u = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            m = network(u, float(t))
            if cls.__name__ == "CogVideoXDPMScheduler":
                x, last = (found := scheduler.step(m, last[0], t, last[1], x, **of_step))[0], [found[1], t]
            else:
                x = scheduler.step(m, t, x, **of_step).prev_sample
    return x.double()


def planned(name: str, steps: int, options: dict[str, Any]) -> Tensor:
    plan = diffexp.compile(PREFIX + name, steps=steps, **options)
    noise = seeded()
    return execute(plan, lambda u, level: network(u, level.timestep), noise() * plan.start_std, noise)


@pytest.mark.parametrize("name", NAMES)
def test_random_options(name: str) -> None:
    """The table of a class is the class, whatever its options; what it refuses is one line that says so."""

    @settings(max_examples=1 if name.startswith("kdpm2") else 3, suppress_health_check=[HealthCheck.too_slow])
    @given(options=choices(name), steps=st.integers(1, 4) | st.integers(5, 30))
    def holds(options: dict[str, Any], steps: int) -> None:
        try:
            theirs = own_loop(getattr(diffusers, CLASSES[name][1]), steps, options)
        except Exception:
            with pytest.raises((InputError, NotLinear)) as caught:
                planned(name, steps, options)
            assert "\n" not in str(caught.value)
            return
        if theirs.isfinite().all():
            ours = planned(name, steps, options)
            assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max().clamp(min=1)
        else:  # no table, except where the class's own float32 keeps finite what float64 does not
            with contextlib.suppress(NotLinear):
                planned(name, steps, options)

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    holds()


def test_enough_classes_that_are_what_they_are_called() -> None:
    assert len(NAMES) >= 22
    for name, (module, cls) in CLASSES.items():
        assert getattr(diffusers, cls).__module__ == f"diffusers.schedulers.scheduling_{module}", name


LEFT_OUT = """Amused BlockRefinement DiscreteDDIM EntropyBound VQDiffusion HeliosDMD KarrasVe Piflow RePaint
    RFD4Proteina ScoreSdeVe ScoreSdeVp ConsistencyDecoder DDPMWuerstchen Helios MiniMaxH3 SCM
    CosineDPMSolverMultistep DPMSolverSDE""".split()
"""The docstring of ``diffusers_options`` says why."""


def test_every_class_of_diffusers_is_an_option_or_left_out_for_a_reason() -> None:
    text = diffusers_options.__doc__ or ""
    assert [name for name in LEFT_OUT if name not in text] == []
    there = {name for name in dir(diffusers.schedulers) if name.endswith("Scheduler")}
    known = {cls for _, cls in CLASSES.values()} | {f"{name}Scheduler" for name in LEFT_OUT}
    assert there <= known


def test_thresholding_runs_directly_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    sampler = build_sampler(diffusers.DDIMScheduler, steps=6, training=TRAINING, options={"thresholding": True})
    assert isinstance(sampler, Direct)
    (line,) = (record.getMessage() for record in caplog.records if record.name.startswith("diffexp"))
    assert "DDIMScheduler" in line and "directly" in line


FLOW = Training(FlowSchedule(shift=3.0), Prediction.FLOW, spacing="flow")
EDM = Training(VESchedule(0.01, 80.0, 0.7), Preconditioned(0.7), spacing="karras")


@pytest.mark.parametrize(
    ("name", "training"),
    [
        *((name, FLOW) for name in ("unipc", "dpmsolver_multistep", "deis", "sasolver", "flow_match_euler")),
        *((name, EDM) for name in ("edm_euler", "edm_dpmsolver_multistep")),
        *((name, TRAINING) for name in ("ddim", "heun", "unclip")),
    ],
)
def test_the_training_is_the_models(name: str, training: Training) -> None:
    """On Gaussian data the error of a right solver vanishes; with another schedule or prediction it stays."""
    if name == "unclip":  # it has one schedule and takes no other
        with pytest.raises(InputError, match="a noise schedule of its own, which is not the model's"):
            diffexp.compile(PREFIX + name, steps=40, model=training)
        return
    plan = diffexp.compile(PREFIX + name, steps=200, model=training)
    mean, variances = torch.tensor([0.4, -1.0]), torch.tensor([0.5, 1.5])
    got = gaussian_output(plan, mean, variances, training.prediction)
    assert torch.allclose(got[0], mean.double(), atol=4e-2)
    assert torch.allclose(got[1], variances.double(), atol=4e-2)


@pytest.mark.parametrize(
    ("name", "training", "kind"),
    [("edm_euler", TRAINING, "variance-preserving"), ("ddim", FLOW, "flow-matching"), ("flow_match_heun", EDM, "EDM")],
)
def test_a_class_for_other_models_is_refused(name: str, training: Training, kind: str) -> None:
    with pytest.raises(InputError, match=f"not for this kind of model, which is .*{kind}"):
        diffexp.compile(PREFIX + name, steps=5, model=training)


SIGMAS = [0.95, 0.7, 0.4, 0.1]


@pytest.mark.parametrize(
    ("name", "training", "grid"),
    [
        ("ddpm", TRAINING, {"timesteps": [901, 640, 333, 20]}),
        ("dpmsolver_multistep", TRAINING, {"timesteps": [901, 640, 333, 20]}),
        ("heun", TRAINING, {"timesteps": [901, 640, 333, 20]}),
        ("euler", TRAINING, {"sigmas": [20.0, 5.0, 1.0, 0.1]}),
        ("unipc", FLOW, {"sigmas": SIGMAS}),
        ("flow_match_euler", FLOW, {"sigmas": SIGMAS}),
        ("flow_match_lcm", FLOW, {"sigmas": SIGMAS}),
        ("flow_map_euler", FLOW, {"sigmas": SIGMAS}),
        ("ltx_euler_ancestral", FLOW, {"sigmas": SIGMAS}),
    ],
)
def test_a_list_of_levels_is_used_as_given(name: str, training: Training, grid: dict[str, Any]) -> None:
    """Flow classes shift what they are handed once more; here they do not."""
    plan = diffexp.compile(PREFIX + name, steps=4, model=training, **grid)
    levels = Grid(**grid).levels(training, 4)
    told = [t for t, _ in itertools.groupby(row.level.timestep for row in plan.rows)]
    assert told == pytest.approx([level.timestep for level in levels[:-1]], rel=1e-5, abs=2e-2)


@pytest.mark.parametrize(
    ("name", "training", "grid"),
    [
        ("ddim", TRAINING, {"timesteps": [901, 640, 333, 20]}),
        ("kdpm2", TRAINING, {"sigmas": [20.0, 5.0, 1.0, 0.1]}),
        ("dpmsolver_multistep", TRAINING, {"sigmas": [20.0, 5.0, 1.0, 0.1]}),
        ("flow_match_heun", FLOW, {"sigmas": SIGMAS}),
        ("dpmsolver_multistep", FLOW, {"sigmas": SIGMAS}),
        ("edm_euler", EDM, {"sigmas": [40.0, 5.0, 1.0, 0.1]}),
    ],
)
def test_or_refused(name: str, training: Training, grid: dict[str, Any]) -> None:
    """EDMEuler takes sigmas and puts them through Karras' formula once more."""
    with pytest.raises(InputError, match="cannot visit exactly the levels"):
        diffexp.compile(PREFIX + name, steps=4, model=training, **grid)


def test_a_shift_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"grid=auto contradicts scheduler.shift=2.0"):
        diffexp.compile(PREFIX + "flow_match_euler", steps=4, model=FLOW, sigmas=SIGMAS, shift=2.0)


def test_an_option_of_a_grid_is_not_dropped() -> None:
    """``use_karras_sigmas`` has no rho: with another than 7 the levels are handed over one by one, or refused."""
    grid = Grid("karras", functools.partial(grids.karras, rho=3.0))
    ours = diffexp.compile("euler", steps=6, model=TRAINING, grid=grid)
    assert ours.difference(diffexp.compile(diffusers.EulerDiscreteScheduler, steps=6, model=TRAINING, grid=grid)) < 1e-5
    with pytest.raises(InputError, match="cannot visit exactly the levels of grid=karras"):
        diffexp.compile(diffusers.UniPCMultistepScheduler, steps=6, model=TRAINING, grid=grid)
    with pytest.raises(InputError, match=r"grid=trailing contradicts scheduler.timestep_spacing=leading"):
        diffexp.compile(diffusers.DDIMScheduler, steps=6, model=TRAINING, grid="trailing", timestep_spacing="leading")


def test_an_object_takes_a_grid_or_refuses_it() -> None:
    ours = diffexp.compile("ddpm", steps=3, model=TRAINING, timesteps=[900, 500, 100])
    theirs = diffexp.compile(
        diffusers.DDPMScheduler(clip_sample=False), steps=3, model=TRAINING, timesteps=[900, 500, 100]
    )
    assert ours.difference(theirs) < 1e-12
    with pytest.raises(InputError, match="cannot visit exactly the levels of grid=trailing"):
        diffexp.compile(diffusers.DDIMScheduler(), steps=3, grid="trailing")


def test_without_a_model_a_class_has_its_own_training() -> None:
    for cls in (diffusers.HeunDiscreteScheduler, diffusers.CogVideoXDDIMScheduler, diffusers.UnCLIPScheduler):
        assert diffexp.compile(cls, steps=5).difference(diffexp.compile(cls(), steps=5)) == 0
    own: Any = diffusers.DDIMScheduler
    expected = diffexp.compile(own(prediction_type="v_prediction", beta_end=0.01), steps=5)
    for scheduler in (own, "diffusers/ddim"):
        found = diffexp.compile(scheduler, steps=5, prediction_type="v_prediction", beta_end=0.01)
        assert found.difference(expected) == 0
    with pytest.raises(InputError, match=r"scheduler.beta_end is how the model was trained"):
        diffexp.compile("diffusers/ddim", steps=5, model=TRAINING, beta_end=0.01)


def test_what_a_config_leaves_out_is_the_models() -> None:
    """Written by one class, it says nothing of what that class took by default; another class has other defaults."""
    config = {"_class_name": "DDIMScheduler", "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    training = Training(TRAINING.schedule, Prediction.V, Clip(0.7), config)
    theirs: Any = diffusers.HeunDiscreteScheduler
    expected = theirs(
        beta_start=1e-4, beta_end=0.02, prediction_type="v_prediction", clip_sample=True, clip_sample_range=0.7
    )
    assert diffexp.compile(theirs, steps=6, model=training).difference(diffexp.compile(expected, steps=6)) == 0


def test_an_option_without_effect_is_told(caplog: pytest.LogCaptureFixture) -> None:
    plain = diffexp.compile("diffusers/tcd", steps=4)
    assert not caplog.messages
    assert diffexp.compile("diffusers/tcd", steps=4, timestep_scaling=3.0) == plain
    assert "TCDScheduler accepts timestep_scaling and ignores it" in caplog.text
    # It does not count as a word for a grid either: the timesteps are handed over one by one.
    timesteps = [row.level.timestep for row in diffexp.compile("diffusers/lcm", steps=4, grid="leading").rows]
    assert timesteps == [750, 500, 250, 0]


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, option) for name, (_, cls) in CLASSES.items() if cls in QUIRKS for option in QUIRKS[cls].inert],
)
def test_inert_options_are_inert(name: str, option: str) -> None:
    """An upgrade of diffusers may give them a meaning."""
    cls = getattr(diffusers, CLASSES[name][1])
    if option in {*inspect.signature(cls.__init__).parameters, *inspect.signature(cls.step).parameters}:
        values = ["leading", "trailing"] if option == "timestep_spacing" else [False, True]
        chosen: list[dict[str, Any]] = [{option: value} for value in values]
        one, other = (diffexp.compile(cls, steps=5, **options) for options in chosen)
        assert one == other


def test_quirks_are_those_of_classes_that_exist_and_of_what_is_derived_from_them() -> None:
    assert [name for name in QUIRKS if not hasattr(diffusers, name)] == []
    own = type("OwnLMS", (diffusers.LMSDiscreteScheduler,), {})
    assert quirks_of(own) is QUIRKS["LMSDiscreteScheduler"] and quirks_of(diffusers.DDPMScheduler) == Quirks()


def test_a_class_that_cannot_clip_says_so(caplog: pytest.LogCaptureFixture) -> None:
    training = Training(TRAINING.schedule, clip=Clip(1.0))
    diffexp.compile("diffusers/euler", steps=4, model=training)
    assert "EulerDiscreteScheduler cannot clip its x0 estimate" in caplog.text


WITHOUT_SCIPY = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] == "scipy" else find(name, *rest)
from diffexp.cli import run_command

print(run_command(sys.argv[1:]))
"""


def test_lms_without_scipy_is_one_line(tmp_path: Path) -> None:
    """diffusers imports scipy only where it is installed; without, the class would raise a NameError in its steps."""
    words = ["model=gaussian", "scheduler=diffusers/lms", "steps=4", "num_samples=1", "tracker=none"]
    command = [sys.executable, "-c", WITHOUT_SCIPY, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "2"
    assert done.stderr.splitlines()[-1] == "error: LMSDiscreteScheduler needs scipy: pip install scipy"
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert any(line.startswith("scipy") for line in project["dependencies"])  # a plain install brings it
