"""The command: what it writes, how its plans are used, and what it refuses in one line."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffexp
from diffexp.catalog.discover import discover
from diffexp.certify.checks import certify
from diffexp.certify.outcome import Verdict
from diffexp.cli.learn import read_orders, run_command
from diffexp.components import plan_files
from diffexp.components.models.exact import exact_training
from diffexp.errors import InputError
from diffexp.learn.fit import seconds_scored
from diffexp.learn.table import table_of
from diffexp.plan.table import Plan

WORDS = "model=mixture model.std=0.3 metric=wasserstein steps=3 iterations=6 train=8 valid=8 test=16".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a learned plan."""
    place = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFEXP_CACHE", str(tmp_path_factory.mktemp("cache")))
        assert run_command([*WORDS, "method=grid", f"out={place}"]) == 0
    return place


def test_a_folder_has_the_plan_with_what_it_was_learned_for_and_a_page(folder: Path) -> None:
    plan = diffexp.load_plan(folder)
    origin = plan.origin or {}
    assert plan.nfe == 3 and plan.to_csv() == (folder / "plan.csv").read_text()
    assert origin["model_id"] == "mixture" and origin["guidance_scale"] == 1 and origin["settings"]["method"] == "grid"
    assert origin["start"]["scheduler"]["name"] == "dpmpp_2m" and origin["start"]["grid"]["name"] == "ays"
    assert "model=mixture" in origin["command"] and "method=grid" in origin["command"]
    proof = origin["proof"]
    assert proof["samples"] == 16 and {one["metric"] for one in proof["differences"]} <= {
        "trajectory_error",
        "wasserstein",
    }
    page = (folder / "report.html").read_text()
    assert f"All {proof['screened']} hand-made schedulers" in page and page.count(" on karras</th>") > 5
    assert proof["verdict"].split(" in ")[0] in page and "data:image/png" in page and page.count("<svg") >= 3


def test_a_learned_plan_runs_like_any_scheduler_and_is_told_where_it_is_out_of_place(
    folder: Path, tmp_path, caplog, monkeypatch
) -> None:
    plan, run = diffexp.load_plan(folder), {"metric": "cost", "tracker": "none", "num_samples": 4}
    scheduler = {"name": "learned", "path": str(folder)}
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        result = diffexp.run(model={"name": "mixture", "std": 0.3}, scheduler=scheduler, steps=3, **run)
    assert result.record["plan_sha256"] == plan.sha256 and result.metrics["nfe"] == 3
    assert ("this plan" in caplog.text) == (not (plan.origin or {})["proof"]["better"])
    assert "was learned for" not in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        diffexp.run(model="gaussian", scheduler=scheduler, steps=7, dtype="float32", **run)
    assert "the plan was learned for model=mixture, not gaussian" in caplog.text
    assert "in dtype=float64, not float32" in caplog.text
    assert "steps=7 has no effect" in caplog.text
    assert not [one for one in caplog.records if "float64" in one.message and one.levelno > logging.INFO]
    coarse = replace(plan, origin={**(plan.origin or {}), "dtype": "bfloat16"})
    (tmp_path / "coarse.json").write_text(coarse.to_json())
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        diffexp.run(model={"name": "mixture", "std": 0.3}, scheduler={"name": "learned", "path": "coarse.json"}, **run)
    assert "learned in dtype=bfloat16, not float64" in caplog.text


def test_a_learned_plan_is_certified_for_what_applies_to_it(folder: Path, tmp_path) -> None:
    """Even where the network's input is scaled otherwise than its level asks for."""
    table = table_of(diffexp.load_plan(folder), exact_training("vp", None))
    with torch.no_grad():
        table.scales.add_(0.1)
    (tmp_path / "plan.json").write_text(table.to_plan().to_json())
    certificate = certify("learned", path=str(tmp_path))
    assert certificate.passed
    assert {certificate.outcomes[check].verdict for check in ("point", "precision", "ends")} == {Verdict.PASSED}
    assert "has no order" in certificate.outcomes["order"].sentence


def test_the_shipped_plan_is_that_of_the_model_and_the_number_of_steps(folder: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(plan_files, "SHIPPED", tmp_path)
    (tmp_path / "mixture").mkdir()
    (tmp_path / "mixture" / "3.json").write_text((folder / "plan.json").read_text())
    assert diffexp.compile("learned", steps=3, model="mixture") == diffexp.load_plan(folder)
    with pytest.raises(InputError, match="of steps=4 ships for model=mixture: choose one of 3, or"):
        diffexp.compile("learned", steps=4, model="mixture")
    with pytest.raises(InputError, match="no learned plan ships for model=gaussian"):
        diffexp.compile("learned", steps=3, model="gaussian")
    with pytest.raises(InputError, match="depends on the model"):
        diffexp.compile("learned", steps=3)


def test_only_a_proven_plan_is_shipped(folder: Path, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(plan_files, "SHIPPED", tmp_path / "plans")
    plan = diffexp.load_plan(folder)
    for better, code in ((False, 2), (True, 0)):
        origin = {**(plan.origin or {}), "proof": {"better": better}}
        (tmp_path / "plan.json").write_text(replace(plan, origin=origin).to_json())
        assert run_command([f"ship={tmp_path}"]) == code
    assert "only a plan that was proven better" in capsys.readouterr().err
    assert diffexp.compile("learned", steps=3, model="mixture") == plan


def test_every_shipped_plan_is_proven_for_its_model_and_certified() -> None:
    for file in plan_files.SHIPPED.glob("*/*.json"):
        plan = Plan.from_json(file.read_text())
        assert plan.origin and plan.origin["model_id"] == file.parent.name and plan.nfe == int(file.stem)
        assert plan.origin["proof"]["better"], file
        certificate = certify("learned", path=str(file))
        assert certificate.passed, file
        assert {certificate.outcomes[check].verdict for check in ("point", "precision", "ends")} == {Verdict.PASSED}


def test_several_numbers_of_steps_are_several_folders(tmp_path) -> None:
    orders = read_orders(["-m", "model=gaussian", "steps=3,5", "iterations=7", f"out={tmp_path}"], discover())
    assert [order.config["steps"] for order in orders] == [3, 5]
    assert [order.folder.name for order in orders] == ["0_gaussian_gauss_newton_3", "1_gaussian_gauss_newton_5"]
    assert all(order.settings.iterations == 7 and order.folder.parent == tmp_path for order in orders)
    assert (
        orders[1].command
        == "python -m diffexp.learn model=gaussian steps=5 scheduler=dpmpp_2m tracker=none iterations=7"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=gaussian", "method=endpont"], "method=endpont is not known; did you mean"),
        (["model=gaussian", "iterations=0"], "iterations=0 must be at least 1"),
        (["model=gaussian", "iterations=many"], "iterations=many is not a whole number"),
        (["model=gaussain"], "did you mean"),
        (["resume=nowhere"], "there is no learn.json"),
        (["resume=nowhere", "steps=3"], "resume= stands alone"),
        (["model=gaussian", "scheduler=heun", "steps=3", "test=0"], "evaluates a noise level twice, or goes back"),
        (["model=gaussian", "loss=features", "steps=3", "train=2", "valid=2"], "loss=features: the features mnist_cnn"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(words) == 2
    error = capsys.readouterr().err
    line = next(line for line in error.splitlines() if line.startswith("error: "))
    assert message in line and "Traceback" not in error


def test_an_interrupted_run_continues_where_it_was(tmp_path, monkeypatch, capsys, caplog) -> None:
    from diffexp.learn import problem

    monkeypatch.setenv("DIFFEXP_CACHE", str(tmp_path / "cache"))
    calls, score = [], problem.Problem.score

    def interrupting(self, table):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return score(self, table)

    place = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(problem.Problem, "score", interrupting)
        assert run_command([*WORDS, "grid=ays", "test=0", f"out={place}"]) == 130
    first = json.loads((place / "plan.json").read_text())["origin"]
    assert (place / "state.pt").is_file() and "report.html" in capsys.readouterr().out
    assert run_command([f"resume={place}"]) == 0
    second = json.loads((place / "plan.json").read_text())["origin"]
    assert second["score"]["at_start"] == first["score"]["at_start"]
    assert second["score"]["best"] >= first["score"]["best"] and second["seconds"] >= first["seconds"]
    assert "was not compared" in caplog.text and "continues at iteration 2 of 6" in caplog.text
    (place / "plan.json").unlink()  # as where an attempt was killed
    assert run_command([f"resume={place}"]) == 0
    third = json.loads((place / "plan.json").read_text())["origin"]
    assert third["seconds"] >= round(seconds_scored(place), 1) > 0 and third["score"] == second["score"]
    (again,) = read_orders([f"resume={place}", "test=7"], discover())
    assert again.settings == replace(read_orders([f"resume={place}"], discover())[0].settings, test=7)
    assert again.command.endswith("test=7") and again.command.count("test=") == 1


def test_a_latent_model_is_learned_for_its_prompts_and_compared_on_others(tiny, tmp_path, monkeypatch) -> None:
    """Through its guidance, with activations computed twice where they are too many; used by its pipeline too."""
    from diffexp.learn import problem

    monkeypatch.setattr(problem, "KEPT_BYTES", 0)
    prompts, images = ["a cat", "two dogs", "a house", "a tree"], list[torch.Tensor]()
    words = [
        "model=pipeline",
        f"model.id={tiny('sd15')}",
        "model.height=32",
        "model.width=32",
        "steps=3",
        "grid=trailing",
    ]
    few = ["train=3", "valid=2", "test=2", "batch=3", "iterations=2", "guidance_scale=3"]
    place = tmp_path / "out"
    assert run_command([*words, *few, f"prompt={prompts}", f"out={place}"]) == 0
    plan = diffexp.load_plan(place)
    assert plan.nfe == 3 and (plan.origin or {})["guidance_scale"] == 3
    assert (plan.origin or {})["score"]["best"] >= (plan.origin or {})["score"]["at_start"]
    learned_from = problem._prompts_of(prompts, held_out=False), problem._prompts_of(prompts, held_out=True)
    assert learned_from == (prompts[:3], prompts[3:])
    common = {"steps": 3, "num_samples": 1, "guidance_scale": 3, "metric": "cost", "tracker": "none"}
    model = {"name": "pipeline", "id": tiny("sd15"), "height": 32, "width": 32}
    monkeypatch.chdir(tmp_path)
    for loop in ("denoise", "pipeline"):  # the pipeline steps by a scheduler that the plan is behind
        done = diffexp.run(
            model=model, scheduler={"name": "learned", "path": str(place)}, loop=loop, prompt="a tree", **common
        )
        assert done.metrics["nfe"] == 3, loop
        images.append(torch.from_numpy(np.asarray(Image.open(done.folder / "samples" / "000000.png")).astype(float)))
    assert (images[0] - images[1]).abs().max() <= 2
