"""Keys that somebody gave and that change nothing: named in one line, refused where they are swept."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffexp.catalog.discover import Catalog, discover
from diffexp.cli.command import run_command
from diffexp.errors import InputError
from diffexp.experiment.run import SweepInfo, run_experiment
from tests.runs import PICTURES, images, metrics, network, raise_at

GIVEN = ("tracker=none", "metric=cost", "num_samples=2", "snapshot_every=0", "steps=4")

PLUGIN = """
from diffexp import guidance, loop

@guidance
def own_negative(predict, scale, model):  # acts without a negative side of the condition, whatever the scale
    return lambda u, t, condition: 1.5 * predict(u, t, condition)

@loop(idle=["strength where twice=false", "batch_size"])
def chatty(batch, *, twice: bool = False, strength: float = 1.0):
    return batch.noise()
"""

Told = Callable[..., list[str]]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    file = tmp_path_factory.mktemp("plugins") / "own.py"
    file.write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFEXP_PLUGINS", str(file))
        yield discover()


@pytest.fixture
def told(
    catalog: Catalog, compose: Callable[..., dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Told:
    """Run words as Hydra would and return what is said to have no effect; ``swept`` are keys that a sweep varies."""

    def told(*words: str, swept: set[str] | None = None) -> list[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(words)))
        caplog.clear()
        sweep = None if swept is None else SweepInfo(tmp_path, 0, swept=swept)
        with caplog.at_level(logging.WARNING, logger="diffexp"):
            run_experiment(compose(*GIVEN, *words), folder, catalog, sweep)
        return [text for record in caplog.records if " has no effect: " in (text := record.getMessage())]

    return told


UNCONDITIONAL = "model=mixture has nothing to guide away from"
IDLE = [
    # guidance
    ("guidance=diffusers/apg", "guidance_scale=1 is no guidance; give one above 1"),
    ("guidance=cfg guidance.rescale=0.7", "guidance_scale=1 is no guidance; give one above 1"),
    ("guidance_scale=0.5", "guidance_scale=0.5 is no guidance; give one above 1"),
    ("negative_prompt=three", "guidance_scale=1 is no guidance; give one above 1"),
    ("model=mixture guidance_scale=4", UNCONDITIONAL),
    ("model=mixture guidance=diffusers/apg", UNCONDITIONAL),
    ("guidance=none guidance_scale=4", "guidance=none leaves the predictions as they are"),
    ("guidance=none negative_prompt=three", "guidance_scale=1 is no guidance; give one above 1"),
    ("label=10 guidance_scale=4", "guidance=cfg leaves the predictions as they are"),  # 10 is "no label"
    (
        "guidance_scale=4 guidance=interval guidance.low=200 guidance.high=300",
        "guidance=interval leaves the predictions as they are",
    ),
    ("guidance_scale=4 guidance=own_negative", "the predictions are the same without it"),
    # levels
    ("grid.timesteps=[999,700] steps=10", "grid.timesteps lists 2 levels"),
    ("grid.sigmas=[10.0,1.0,0.1] grid=karras", "grid.sigmas lists 3 levels"),
    ("grid=karras grid.rho=3 grid.timesteps=[999,700]", "grid.timesteps lists 2 levels"),
    # schedulers
    ("scheduler=unipc scheduler.order=3 steps=4", "the plan of the scheduler is the same without it"),
    ("scheduler=diffusers/euler scheduler.s_noise=1.5", "the plan of the scheduler is the same without it"),
    ("scheduler=diffusers/dpmsolver_multistep scheduler.solver_order=3 steps=2", "the plan of the scheduler is"),
    # declared
    ("model=gaussian model.shape=[1,8,8] model.angle=10", "model.shape=[1,8,8]"),
    ("model=mixture model.seed=3", "model.shape=[2]"),
    ("model=mixture compile=true", "model=mixture does not use it"),
    ("model=mixture loop=chatty loop.strength=0.5", "loop.twice=false"),
    ("model=mixture loop=chatty batch_size=7", "loop=chatty does not use it"),
    # others
    ("label=[1,2,3]", "of its 3 entries only 2 are used, num_samples=2"),
    ("objective=nfe", "it is for sweeps and searches"),
]
ACTING = [
    "guidance_scale=1",
    "guidance=none",
    "guidance_scale=2 guidance=diffusers/apg",
    "guidance_scale=2 guidance.rescale=0.7 negative_prompt=three",
    "guidance_scale=2 guidance=interval",
    "guidance_scale=0.5 guidance=cfg_pp",
    "label=[10,3] guidance_scale=4",
    "model=mixture guidance=own_negative",
    "grid.timesteps=[999,700] steps=2",
    "grid=karras grid.rho=3",
    "scheduler.eta=0.5",
    "scheduler.eta=0",
    "scheduler=unipc scheduler.order=3 steps=5",
    "scheduler=diffusers/euler scheduler.s_churn=1.0 scheduler.s_noise=1.5",
    "model=gaussian model.angle=10",
    "model=mixture loop=chatty loop.strength=0.5 loop.twice=true",
    "label=[1,2] seed=1",
]


@pytest.mark.parametrize(("words", "why"), IDLE)
def test_what_has_no_effect_is_named_with_the_reason(words: str, why: str, told: Told):
    found = told(*words.split())
    assert found, "nothing was said"
    for line in found:
        word, _, reason = line.partition(" has no effect: ")
        assert word.partition("=")[0] in {word.partition("=")[0] for word in words.split()}
        assert reason.startswith(why) and "\n" not in line


@pytest.mark.parametrize("words", ACTING)
def test_what_has_an_effect_is_not(words: str, told: Told):
    assert told(*words.split()) == []


def test_every_idle_key_is_named_once(told: Told):
    found = told("model=mixture", "guidance_scale=4", "guidance=cfg", "guidance.rescale=0.5", "steps=4", "compile=true")
    assert [line.partition("=")[0] for line in found] == ["compile", "guidance_scale", "guidance", "guidance.rescale"]


@pytest.mark.parametrize(
    ("words", "swept"),
    [
        ("model=mixture guidance_scale=4", "guidance_scale"),
        ("model=mixture guidance_scale=1", "guidance_scale"),
        ("guidance=diffusers/apg", "guidance"),
        ("grid.timesteps=[999,700] steps=10", "steps"),
        ("scheduler=diffusers/euler scheduler.s_noise=1.5", "scheduler.s_noise"),
        ("model=mixture model.seed=3", "model.seed"),
    ],
)
def test_a_swept_key_without_effect_is_refused(words: str, swept: str, told: Told):
    with pytest.raises(InputError, match=f"^{swept}=.* has no effect: "):
        told(*words.split(), swept={swept})


def test_a_swept_key_is_not_refused_where_another_one_decides(told: Told):
    assert told("guidance=none", "guidance_scale=4", swept={"guidance", "guidance_scale"})
    assert told("guidance=none", "guidance_scale=1", swept={"guidance", "guidance_scale"}) == [
        "guidance_scale=1.0 has no effect: guidance=none leaves the predictions as they are"
    ]
    assert told("guidance=cfg", "guidance_scale=1", swept={"guidance", "guidance_scale"})
    assert told("scheduler=ddim", "guidance_scale=1", swept={"guidance_scale"}) == []
    with pytest.raises(InputError, match="^guidance_scale=1.0 has no effect: guidance=none leaves"):
        told("guidance=none", "guidance_scale=1", swept={"guidance_scale"})
    assert told("scheduler=unipc", "scheduler.order=3", "steps=4", swept={"steps", "scheduler.order"})


def test_a_seed_that_nothing_depends_on(told: Told, tmp_path: Path):
    told("label=7", "num_samples=1")
    image = tmp_path / "0" / "samples" / "000000.png"
    words = ["loop=inversion", f"loop.image={image}", "seed=1", "num_samples=1", "label=7"]
    assert told(*words) == ["seed=1 has no effect: nothing is drawn at random"]
    assert told(*words, "scheduler=ddpm") == []
    with pytest.raises(InputError, match="^seed=1 has no effect"):
        told(*words, swept={"seed"})


def test_a_seed_of_a_run_that_ended_before_its_first_batch(told: Told, monkeypatch: pytest.MonkeyPatch, caplog):
    network(monkeypatch, raise_at(2, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        told(*PICTURES, "seed=1")
    assert not [record for record in caplog.records if " has no effect: " in record.getMessage()]


@pytest.mark.parametrize("value", ["-1", "-0.5"])
def test_a_scale_below_zero_is_refused(value: str, capsys: pytest.CaptureFixture[str]):
    assert run_command([f"guidance_scale={value}"]) == 2
    assert capsys.readouterr().err == f"error: guidance_scale={value} must be at least 0\n"


def test_a_swept_axis_without_effect_ends_the_command_with_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    words = ["model=mixture", "tracker=none", "num_samples=2", "steps=2", "snapshot_every=0", "metric=cost"]
    assert run_command(["-m", *words, "guidance_scale=1,4", "hydra.sweep.dir=sweep"]) == 2
    printed = capsys.readouterr().err
    cells = ["0_mixture_ddim_2_guidance_scale1", "1_mixture_ddim_2_guidance_scale4"]
    for cell, scale in zip(cells, ("1.0", "4.0"), strict=True):
        assert f"{cell}: guidance_scale={scale} has no effect: {UNCONDITIONAL}" in printed
    assert json.loads((tmp_path / "sweep" / cells[0] / "run.json").read_text())["status"] == "failed"


def test_the_command_names_a_guidance_without_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    words = ["tracker=none", "num_samples=1", "steps=2", "snapshot_every=0", "metric=cost", "guidance=diffusers/apg"]
    assert run_command([*words, "hydra.run.dir=run"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "has no effect" in line]
    assert len(lines) == 1 and "guidance=diffusers/apg has no effect: guidance_scale=1 is no guidance" in lines[0]
    assert metrics(tmp_path / "run")["forward_passes"] == 2 and len(images(tmp_path / "run")) == 1
