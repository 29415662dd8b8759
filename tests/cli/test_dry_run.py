"""``--dry-run``: what a command would run and what it would take, without a trace."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from diffexp.cli import run_command
from diffexp.cli.dry_run import duration
from diffexp.experiment.provenance import hostname
from tests.runs import PLUGINS

MIXTURE = ["model=mixture", "num_samples=10", "tracker=none", "metric=cost", "snapshot_every=0"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFEXP_CACHE", str(tmp_path.parent / f"{tmp_path.name}-cache"))


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[str]:
    before = sorted(Path().rglob("*"))
    assert run_command([*words, "--dry-run"]) == code
    assert sorted(Path().rglob("*")) == before, "nothing is written"
    return capsys.readouterr().out.splitlines()


def rows(lines: Sequence[str], name: str = r" \d") -> dict[str, list[str]]:
    """The columns between folder and time, by folder.

    Args:
        name: how the rows begin.
    """
    found = [re.split(r" {2,}", line.strip()) for line in lines if re.match(name, line)]
    return {row[0]: row[1:4] for row in found}


def test_the_evaluations_of_every_cell_are_those_of_its_plan(capsys: pytest.CaptureFixture[str]):
    words = ["-m", *MIXTURE, "scheduler=ddim,heun", "steps=5,8", "seed=0,1"]
    lines = printed(capsys, *words)
    assert rows(lines) == {
        f"{number}_mixture_{name}_{steps}_seed{seed}": [str(nfe), str(nfe), "10"]
        for number, (name, steps, seed, nfe) in enumerate(
            (name, steps, seed, nfe)
            for name, costs in (("ddim", {5: 5, 8: 8}), ("heun", {5: 9, 8: 15}))
            for steps, nfe in costs.items()
            for seed in (0, 1)
        )
    }
    assert "8 runs, 80 samples, 740 forward passes" in lines
    assert any(re.match(r"about .* of sampling: as a short timing now took; ", line) for line in lines)
    assert lines[-1] == "nothing was run or written; leave out --dry-run to run it"


def test_guidance_loops_and_budgets_count(capsys: pytest.CaptureFixture[str]):
    found = rows(printed(capsys, "-m", "model=mnist", "label=3", "guidance_scale=1,3", "steps=4", "num_samples=2"))
    assert [row[:2] for row in found.values()] == [["4", "4"], ["4", "8"]]
    (budget,) = rows(printed(capsys, *MIXTURE, "scheduler=heun", "max_nfe=6", "steps=50")).values()
    assert budget[0] == "5"


def test_a_loop_that_begins_in_the_middle_is_counted_exactly(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from PIL import Image

    Image.new("L", (28, 28)).save(tmp_path / "digit.png")
    words = ["model=mnist", "loop=img2img", f"loop.image={tmp_path}/digit.png", "steps=10", "num_samples=1"]
    words += ["loop.strength=0.5", "tracker=none", "metric=cost"]
    (row,) = rows(printed(capsys, *words)).values()
    assert run_command([*words, "hydra.run.dir=run"]) == 0
    stated = json.loads(Path("run/run.json").read_text())
    assert row[:2] == [str(stated["nfe"]), f"{stated['forward_passes']:g}"] != ["10", "10"]


def test_samplers_that_choose_their_steps_are_about(capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text(PLUGINS)
    (row,) = rows(printed(capsys, *MIXTURE, "scheduler=curved", "steps=5")).values()
    assert row[0].startswith("about ")


def test_time_is_that_of_earlier_runs_on_this_machine(capsys: pytest.CaptureFixture[str]):
    def earlier(name: str, **changes: object) -> None:
        assert run_command([*MIXTURE, "steps=4", f"hydra.run.dir=outputs/day/{name}"]) == 0
        file = Path(f"outputs/day/{name}/run.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    earlier("here", sampling_seconds=400.0)
    earlier("there", sampling_seconds=4.0, host="another machine")
    assert json.loads(Path("outputs/day/here/run.json").read_text())["host"] == hostname()
    capsys.readouterr()
    lines = printed(capsys, *MIXTURE, "steps=8", "num_samples=5")
    told = "about 6 min 40 s of sampling: as in an earlier run of this model on this machine; loading, "
    assert any(line.startswith(told) for line in lines), lines
    lines = printed(capsys, "-m", *MIXTURE, "steps=8,16", "num_samples=5", "workers=2")
    assert any(line.startswith("about 20 min 0 s of sampling, 10 min 0 s with 2 workers") for line in lines)


def test_cells_that_would_fail_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "plugins").mkdir()
    lines = ["from diffexp import model", "@model", "def broken(runtime):", "    raise RuntimeError('boom')"]
    (tmp_path / "plugins" / "broken.py").write_text("\n".join(lines))
    lines = printed(capsys, "-m", *MIXTURE[1:], "steps=5", "model=mixture,broken,gaussian", code=1)
    (failing,) = (line for line in lines if line.startswith("would fail: "))
    assert failing.startswith("would fail: 1_broken_ddim_5: RuntimeError: boom")
    assert "2 runs, 20 samples, 100 forward passes" in lines
    lines = printed(capsys, "-m", *MIXTURE, "steps=5", "guidance_scale=1,2", code=2)
    assert any("guidance_scale=1.0 has no effect" in line for line in lines)


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]):
    assert run_command(["stepz=3", "--dry-run"]) == 2
    assert capsys.readouterr().err == "error: unknown key 'stepz'; did you mean 'steps'?\n"


def test_of_a_search_its_space_and_what_trials_at_its_ends_take(capsys: pytest.CaptureFixture[str]):
    search = ["-m", *MIXTURE, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=7", "objective=nfe"]
    space = ["scheduler=choice(ddim,heun,unipc)", "steps=range(4,30)", "model.std=interval(0.05,0.1)"]
    lines = printed(capsys, *search, *space)
    keys = [line.split()[:2] for line in lines if line.split()[1:2] and "(" in line.split()[1]]
    assert keys[:3] == [
        ["scheduler", "choice(ddim,heun,unipc)"],
        ["steps", "range(4,30)"],
        ["model.std", "interval(0.05,0.1)"],
    ]
    found = rows(lines, r" [\w.]+=")
    assert {name.partition(",")[0]: row[1] for name, row in found.items()} == {
        "scheduler=ddim": "4",
        "steps=29": "29",
        "scheduler=heun": "7",
        "scheduler=unipc": "4",
        "model.std=0.1": "4",
    }
    assert "7 trials, each of 40 to 290 forward passes" in lines
    assert any(re.match(r"about .* of sampling each, .* in all: as a short timing now took; ", line) for line in lines)
    lines = printed(capsys, *search, "scheduler=ddim,heun", "scheduler.eta=interval(0,1)")
    assert any(line.startswith("would fail: scheduler=heun: unknown option 'scheduler.eta'") for line in lines)


def test_of_a_resumed_sweep_what_is_done_costs_nothing(capsys: pytest.CaptureFixture[str]):
    assert run_command(["-m", *MIXTURE, "steps=4,6", "hydra.sweep.dir=sweep"]) == 0
    file = Path("sweep/1_mixture_ddim_6/run.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "interrupted"}))
    capsys.readouterr()
    lines = printed(capsys, "resume=sweep")
    assert "1 run, 10 samples, 60 forward passes" in lines
    assert any(line.split()[-1:] == ["done"] for line in lines)


def test_durations():
    found = [duration(seconds) for seconds in (None, 0.04, 3.21, 12.2, 200, 18_720)]
    assert found == ["?", "0.04 s", "3.2 s", "12 s", "3 min 20 s", "5 h 12 min"]
