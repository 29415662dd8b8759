"""The classes of diffusers on the command line: read without importing, checked like every other option."""

import inspect
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest

import diffexp
from diffexp.catalog.diffusers import CLASSES, PREFIX, TRAINING, class_entry, class_names
from diffexp.catalog.discover import discover
from diffexp.cli.check import Preflight
from diffexp.cli.help import help_text
from diffexp.cli.hydra_config import hydra_session
from diffexp.cli.names import KnownNames
from diffexp.components.models.exact import exact_training
from diffexp.errors import InputError
from diffexp.experiment.build import assemble
from diffexp.plan.table import Plan
from tests.runs import POINTS, record, told

UNIPC = ("scheduler=diffusers/unipc", "scheduler.solver_order=3")


def check_words(*words: str) -> None:
    """What is answered before Hydra is imported."""
    KnownNames.of(discover()).check_words(words)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_options_are_those_of_the_class(name: str) -> None:
    entry = class_entry("scheduler", PREFIX + name)
    assert entry is not None
    cls = entry.load()
    assert cls is getattr(diffusers, CLASSES[name][1])
    defaults = {
        key: parameter.default
        for method in (cls.step, cls.set_timesteps, cls.__init__)
        for key, parameter in inspect.signature(method).parameters.items()
    }
    for option in entry.options:
        assert option.effective_default == defaults[option.name], option.name
        assert option.type.problem(option.effective_default) is None
        assert option.default is None and option.type.optional
    lines = Path(inspect.getfile(cls)).read_text().splitlines()
    assert lines[entry.line - 1].startswith(f"class {CLASSES[name][1]}(")
    assert not {option.name for option in entry.options} & set(TRAINING)


def test_what_users_set_is_there() -> None:
    wanted = {
        "dpmsolver_multistep": {"algorithm_type", "solver_order", "solver_type", "use_karras_sigmas", "use_lu_lambdas"},
        "euler": {"use_karras_sigmas", "final_sigmas_type", "s_churn", "s_noise", "timestep_spacing"},
        "ddim": {"eta", "set_alpha_to_one", "clip_sample"},
        "lms": {"order", "use_karras_sigmas"},
        "lcm": {"original_inference_steps", "timestep_scaling"},
        "flow_match_euler": {"shift", "use_karras_sigmas", "stochastic_sampling", "use_dynamic_shifting", "mu"},
        "unipc": {"solver_order", "predict_x0", "disable_corrector", "final_sigmas_type", "flow_shift"},
        "sasolver": {"predictor_order", "corrector_order", "algorithm_type"},
    }
    for name, options in wanted.items():
        entry = class_entry("scheduler", PREFIX + name)
        assert entry is not None
        assert options <= {option.name for option in entry.options}, name


def test_nothing_is_imported_before_a_mistake_is_told() -> None:
    code = (
        "import sys; from diffexp.cli import run_command\n"
        "assert run_command(['scheduler=diffusers/unipc', 'scheduler.solver_ordr=3']) == 2\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'scipy', 'diffusers', 'hydra')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    expected = (
        "unknown option 'scheduler.solver_ordr' of scheduler=diffusers/unipc; did you mean 'scheduler.solver_order'?"
    )
    assert done.stderr.strip() == f"error: {expected}"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("scheduler=diffusers/unipcc", "scheduler=diffusers/unipcc is not known; did you mean 'diffusers/unipc'?"),
        ("scheduler=diffusers/unipc_multistep", "did you mean 'diffusers/unipc'?"),
        ("scheduler=UniPCMultistepScheduler", "did you mean 'diffusers/unipc'?"),
        ("scheduler=EulerDiscrete", "did you mean 'diffusers/euler'?"),
        ("scheduler=DDIM", "did you mean 'ddim'?"),
        ("scheduler=diffusers/unipc scheduler.solver_order=x", "scheduler.solver_order=x is not an integer"),
        ("scheduler=diffusers/unipc scheduler.solver_type=bh3", "scheduler.solver_type=bh3 is not one of bh1, bh2"),
        ("scheduler=diffusers/unipc scheduler.sigma_max=x", "scheduler.sigma_max=x is not a number"),
        (
            "scheduler=diffusers/ddim scheduler.beta_start=0.1",
            "scheduler.beta_start is how the model was trained, which a scheduler does not change",
        ),
        (
            "scheduler=diffusers/flow_match_euler scheduler.max_shift=2",
            "scheduler.max_shift is for diffusers' own pipelines; it would have no effect here",
        ),
    ],
)
def test_mistakes(words: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        check_words(*words.split())
    assert expected in str(caught.value)
    catalog = discover()
    with hydra_session(catalog) as hydra, pytest.raises(InputError) as caught:
        Preflight(hydra, catalog).check(words.split(), multirun=False)
    assert expected in str(caught.value)


def test_it_composes_and_sweeps() -> None:
    catalog = discover()
    with hydra_session(catalog) as hydra:
        preflight = Preflight(hydra, catalog)
        config = preflight.check([*UNIPC, "grid=karras"], multirun=False).config
        assert (config.scheduler.name, config.scheduler.solver_order) == ("diffusers/unipc", 3)
        assert config.scheduler.use_karras_sigmas is None
        assert "/" not in Path(config.hydra.run.dir).name and "diffusers-unipc" in config.hydra.run.dir
        assert preflight.check(["scheduler=diffusers/unipc,ddim,diffusers/ddim"], multirun=True).multirun
        cells = preflight.check(["scheduler=diffusers/unipc,ddim", "scheduler.solver_order=2,3"], multirun=True).cells
        unipc = "scheduler=diffusers/unipc"
        assert cells == [[unipc, "scheduler.solver_order=2"], [unipc, "scheduler.solver_order=3"], ["scheduler=ddim"]]
        with pytest.raises(InputError, match="diffusers/unip is not known"):
            preflight.check(["scheduler=ddim,diffusers/unip"], multirun=True)


def test_help_lists_every_class_with_its_options() -> None:
    text = help_text(discover())
    for name in class_names("scheduler"):
        assert f"\n  {name:18} {CLASSES[name.removeprefix(PREFIX)][1]}" in text
    assert "scheduler.algorithm_type: dpmsolver|dpmsolver++|sde-dpmsolver|sde-dpmsolver++ = dpmsolver++" in text


def test_a_run(run: Any) -> None:
    result = run(*POINTS, *UNIPC, "grid=karras")
    assert record(result.folder)["status"] == "done"
    assert record(result.folder)["nfe"] == 5


def plan_of(compose: Any, catalog: Any, *words: str) -> Plan:
    sampler = assemble(compose(*POINTS, *words), catalog).sampler
    assert isinstance(sampler, Plan)
    return sampler


def test_the_python_interface_is_the_command_line(compose: Any, catalog: Any) -> None:
    plan = plan_of(compose, catalog, *UNIPC, "scheduler.use_karras_sigmas=true")
    same = diffexp.compile("diffusers/unipc", steps=5, model="mixture", solver_order=3, use_karras_sigmas=True)
    assert plan.difference(same) == 0
    old = ("scheduler=diffusers", "scheduler._target_=diffusers.UniPCMultistepScheduler", "scheduler.solver_order=3")
    assert plan_of(compose, catalog, *UNIPC).difference(plan_of(compose, catalog, *old)) == 0


def test_a_checkpoints_config_goes_before_the_class_and_the_user_before_both(
    compose: Any, catalog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = plan_of(compose, catalog, *UNIPC)
    karras = plan_of(compose, catalog, *UNIPC, "scheduler.use_karras_sigmas=true")
    training = exact_training("vp", None)
    configured = replace(training, scheduler_config={**training.scheduler_config, "use_karras_sigmas": True})
    monkeypatch.setattr("diffexp.components.models.mixture.exact_training", lambda *_: configured)
    assert plan_of(compose, catalog, *UNIPC).difference(karras) == 0
    # It is the class's default, and yet it counts, because somebody wrote it down.
    assert plan_of(compose, catalog, *UNIPC, "scheduler.use_karras_sigmas=false").difference(plain) == 0


def test_what_gives_nan_is_refused_before_it_runs(compose: Any, catalog: Any) -> None:
    words = ("scheduler=diffusers/unipc", "scheduler.predict_x0=false", "scheduler.solver_order=1")
    with pytest.raises(InputError, match="UniPCMultistepScheduler gives NaN at step"):
        plan_of(compose, catalog, *words)


def test_foreign_timesteps_are_told(compose: Any, catalog: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        plan_of(compose, catalog, "scheduler=diffusers/ipndm")
    (line,) = told(caplog)
    assert line.startswith("IPNDMScheduler passes timesteps") and line.endswith("it was trained on 0..999")
