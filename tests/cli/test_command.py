"""The command line: one clear line for every mistake, exit codes, folders, sweeps."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest
import yaml

import diffexp
from diffexp.__main__ import keep_working_folder_out
from diffexp.catalog.keys import TOP_LEVEL
from diffexp.cli import run_command
from diffexp.errors import InputError


@dataclass
class SweepInfo:
    folder: Path
    job: int
    resumed: bool = False
    swept: frozenset[str] = frozenset()
    round: object = None


@dataclass
class Result:
    folder: Path
    status: str


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty working folder, and the experiment replaced by one that records and obeys ``notes``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIFFEXP_PLUGINS", raising=False)
    seen = []

    def run_experiment(config, folder, catalog, sweep=None, context=None):
        seen.append((config, folder, sweep))
        stated = {"status": "done", "error": None, "config": config}
        if config["notes"] == "impossible" or config["steps"] == 13:
            raise InputError("steps is\nimpossible")
        if config["notes"] == "crash" or config["steps"] == 17:
            raise RuntimeError("boom\nbang")
        if config["notes"] == "interrupt" or config["steps"] == 19:
            raise KeyboardInterrupt
        (folder / "run.json").write_text(json.dumps(stated))
        (folder / "metrics.json").write_text(json.dumps({"nfe": config["steps"]}))
        return Result(folder, "done")

    module = ModuleType("diffexp.experiment.run")
    vars(module).update(run_experiment=run_experiment, SweepInfo=SweepInfo)
    monkeypatch.setitem(sys.modules, "diffexp.experiment.run", module)
    return seen


MISTAKES = {
    "stepz=3": "unknown key 'stepz'; did you mean 'steps'?",
    "steps=abc": "steps=abc is not an integer",
    "scheduler=ddimm": "scheduler=ddimm is not known; did you mean 'ddim'? (available: ",
    "scheduler.etaa=1": "unknown option 'scheduler.etaa' of scheduler=ddim; did you mean 'scheduler.eta'?",
    "--steps": "--steps is not a flag: write steps=... (see --help)",
    "--dryrun": "--dryrun is not a flag; did you mean '--dry-run'?",
    "--from-imag=none.png": "none.png: there is no such file",
    "--config-dir=nowhere": "--config-dir=nowhere is not a folder",
    "--config-name=x": "--config-name is not supported",
}


@pytest.mark.parametrize(("word", "expected"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake_is_one_line_and_exit_code_2(runs, capsys, word, expected):
    assert run_command([word]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {expected}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert runs == []
    assert os.listdir() == []


def test_a_sweep_is_checked_as_a_whole_before_it_starts(runs, capsys):
    assert run_command(["-m", "steps=3,0"]) == 2
    assert capsys.readouterr().err == "error: steps=0 must be at least 1\n"
    assert runs == []
    assert os.listdir() == []


def test_a_run(runs, capsys):
    assert run_command(["model=gaussian", "scheduler=euler", "steps=7", "label=[1,2]", "prompt=seven"]) == 0
    ((config, folder, sweep),) = runs
    assert sweep is None
    assert config["scheduler"] == {"name": "euler"}
    assert (config["steps"], config["label"], config["prompt"]) == (7, [1, 2], "seven")
    assert set(config) == set(TOP_LEVEL)
    assert folder.parent.parent.name == "outputs"
    assert "_gaussian_euler_7_" in folder.name
    assert (folder / ".hydra" / "overrides.yaml").read_text().splitlines()[0] == "- model=gaussian"
    assert (folder / "diffexp.log").is_file()
    assert capsys.readouterr().err == ""


class Events:
    """A callback of Hydra's that notes what it is called for."""

    seen: ClassVar[list[str]] = []

    def __getattr__(self, name):
        return lambda **given: self.seen.append(f"{name} {given['config'].hydra.mode.name}")


def test_what_hydra_does_around_a_run_is_done(runs, monkeypatch, tmp_path):
    module, there = sys.modules["diffexp.experiment.run"], []
    inner = vars(module)["run_experiment"]

    def note(*given):
        there.append((Path.cwd(), os.environ.get("DIFFEXP_MINE")))
        return inner(*given)

    monkeypatch.setattr(module, "run_experiment", note)
    Events.seen.clear()
    words = ["hydra.run.dir=here/${seed}", "seed=7", "hydra.job.chdir=true", "+hydra.job.env_set.DIFFEXP_MINE=yes"]
    callback = "+hydra.callbacks.events={_target_: tests.cli.test_command.Events}"
    assert run_command([*words, callback]) == 0
    folder = tmp_path / "here" / "7"
    assert there == [(folder, "yes")]
    assert (Path.cwd(), os.environ.get("DIFFEXP_MINE")) == (tmp_path, None)
    assert Events.seen == [f"on_{event} RUN" for event in ("run_start", "job_start", "job_end", "run_end")]
    assert (folder / "diffexp.log").is_file()
    hydra = yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text())["hydra"]
    assert (hydra["runtime"]["output_dir"], hydra["mode"]) == (str(folder), "RUN")
    assert yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text()) == ["seed=7"]


def test_two_runs_in_the_same_second_have_two_folders(runs):
    assert run_command([]) == run_command([]) == 0
    assert runs[0][1] != runs[1][1]


def test_the_folder_of_a_diffusers_scheduler_has_the_class_name(runs):
    words = ["scheduler=diffusers", "scheduler._target_=diffusers.DPMSolver", "scheduler.order=2", "+scheduler.new=a"]
    assert run_command(words) == 0
    config, folder, _ = runs[0]
    assert "_mnist_DPMSolver_50_" in folder.name
    assert config["scheduler"] == {"name": "diffusers", "_target_": "diffusers.DPMSolver", "order": 2, "new": "a"}


def test_an_explicit_grid_goes_with_every_grid(runs):
    assert run_command(["grid.timesteps=[999,1.5]"]) == 0
    assert run_command(["grid=karras", "grid.sigmas=[80,1]", "grid.rho=5"]) == 0
    assert runs[0][0]["grid"] == {"name": "auto", "timesteps": [999, 1.5], "sigmas": None}
    assert runs[1][0]["grid"]["sigmas"] == [80.0, 1.0]
    assert runs[1][0]["grid"]["rho"] == 5.0


def test_metrics_are_selected_as_a_list(runs):
    assert run_command(["metric=[fid,kid]", "metric.kid.features=mnist_cnn"]) == 0
    assert run_command(["metric=none"]) == 0
    assert {name: node["name"] for name, node in runs[0][0]["metric"].items()} == {"fid": "fid", "kid": "kid"}
    assert runs[0][0]["metric"]["kid"]["features"] == "mnist_cnn"
    assert runs[1][0]["metric"] == {}


@pytest.mark.parametrize(
    ("notes", "code", "printed"),
    [
        ("impossible", 2, "error: steps is impossible\n"),
        ("crash", 1, "error: RuntimeError: boom bang (traceback: "),
        ("interrupt", 130, "error: interrupted; what was finished is in "),
    ],
)
def test_a_run_that_ends_badly(runs, capsys, notes, code, printed):
    assert run_command([f"notes={notes}"]) == code
    said = capsys.readouterr()
    assert said.err.startswith(printed)
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.out
    if notes == "crash":
        assert "RuntimeError: boom" in (runs[0][1] / "diffexp.log").read_text()
        assert json.loads((runs[0][1] / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("launcher", ["batched", "basic"])
def test_interpolations_are_those_of_each_cell(runs, launcher):
    words = ["num_samples=${steps}", "name=${scheduler.name}", "notes=${hydra:job.num}"]
    assert run_command(["-m", "scheduler=ddim,euler", "steps=2,3", *words, f"hydra/launcher={launcher}"]) == 0
    cells = sorted((config["notes"], config["num_samples"], config["name"]) for config, _, _ in runs)
    assert cells == [("0", 2, "ddim"), ("1", 3, "ddim"), ("2", 2, "euler"), ("3", 3, "euler")]


@pytest.mark.parametrize("word", ["scheduler.eta=0.1,${missing}", "num_samples=2,${name}"])
def test_interpolations_are_checked_in_every_value_of_a_sweep(word, runs, tmp_path, capsys):
    assert run_command(["-m", word, "name=x"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not runs
    assert not list(tmp_path.iterdir())


def test_one_config_is_shown_at_a_time(runs, capsys):
    assert run_command(["-m", "steps=2,3", "--cfg", "job"]) == 2
    assert "leave -m out" in capsys.readouterr().err


def test_a_sweep_goes_on_after_a_failure_and_leaves_a_table(runs, capsys):
    assert run_command(["-m", "scheduler=ddim,euler", "steps=5,17"]) == 1
    assert [(config["scheduler"]["name"], config["steps"]) for config, _, _ in runs] == [
        ("ddim", 5),
        ("ddim", 17),
        ("euler", 5),
        ("euler", 17),
    ]
    folder = runs[0][2].folder
    assert [info.job for _, _, info in runs] == [0, 1, 2, 3]
    assert folder.parent.parent.name == "multirun"
    assert [path.name for path in sorted(folder.glob("[0-9]*"))][1] == "1_mnist_ddim_17"
    error = capsys.readouterr().err.splitlines()
    assert error[0] == f"error: 2 of the sweep's runs failed, see {folder}"
    assert error[1] == "  1_mnist_ddim_17: RuntimeError: boom bang"
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert [row["status"] for row in rows] == ["done", "failed", "done", "failed"]
    assert rows[2]["overrides"] == "scheduler=euler steps=5"
    assert rows[2]["nfe"] == "5"
    assert rows[2]["scheduler.name"] == "euler"


def test_a_sweep_of_impossible_runs_has_exit_code_2(runs):
    assert run_command(["-m", "steps=13"]) == 2


def test_ctrl_c_ends_a_sweep_and_leaves_the_table(runs):
    assert run_command(["-m", "steps=5,19"]) == 130
    rows = list(csv.DictReader((runs[-1][2].folder / "results.csv").open()))
    assert [row["status"] for row in rows] == ["done", "missing"]


def test_two_sweeps_in_the_same_second_have_two_folders(runs, capsys):
    assert run_command(["-m", "steps=5"]) == run_command(["-m", "steps=5"]) == 0
    assert len({info.folder for _, _, info in runs}) == 2
    assert [Path(line.split(": ")[1]).name for line in capsys.readouterr().out.splitlines()[-2:]] == [
        "results.csv",
        "report.html",
    ]


def test_an_experiment_can_be_a_sweep(runs):
    assert run_command(["experiment=compare_schedulers", "max_nfe=4"]) == 0
    asked = "ddpm ddim euler heun deis ipndm dpmpp_2m unipc".split()
    assert [(config["scheduler"]["name"], config["max_nfe"]) for config, _, _ in runs] == [(name, 4) for name in asked]


def test_an_unwritable_output_folder(runs, capsys, tmp_path):
    (tmp_path / "file").touch()
    assert run_command([f"hydra.run.dir={tmp_path}/file/x"]) == 2
    assert run_command(["-m", f"hydra.sweep.dir={tmp_path}/file/x", "steps=1,2"]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert "file/x cannot be written: Not a directory" in line
    assert runs == []


def test_a_plugin_is_an_option(runs, tmp_path):
    (tmp_path / "plugins" / "mine" / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "plugins" / "mine" / "conf" / "experiment" / "theirs.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /scheduler: mine\nsteps: 3\nscheduler: {eta: 0.25}\n"
    )
    (tmp_path / "plugins" / "mine" / "code.py").write_text(
        "from diffexp import scheduler\n"
        "@scheduler\ndef mine(denoise, x, levels, noise, *, eta: float = 0.5, needed: int): ...\n"
    )
    assert run_command(["experiment=theirs", "scheduler.needed=2"]) == 0
    assert runs[0][0]["scheduler"] == {"name": "mine", "eta": 0.25, "needed": 2}
    assert run_command(["experiment=theirs"]) == 2


def test_config_dir(runs, tmp_path):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "here.yaml").write_text("# @package _global_\nsteps: 3\n")
    assert run_command(["--config-dir", "own", "experiment=here"]) == 0
    assert runs[0][0]["steps"] == 3


def test_help(runs, capsys, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "a.py").write_text(
        "from diffexp import scheduler\n@scheduler\ndef mine(levels, *, order: int = 2):\n    'Mine.'\n"
    )
    assert run_command(["--help"]) == 0
    text = capsys.readouterr().out
    assert "Mine.  [plugins/a.py]" in text
    assert "scheduler.order: int = 2" in text
    assert "--hydra-help" in text
    for key in TOP_LEVEL:
        assert f"\n{key}=" in text.replace("\n  ", "\n"), key


def test_run_from_python(runs):
    result = diffexp.run(["steps=3", "model=gaussian"])
    assert result.status == "done"
    assert "_gaussian_ddim_3_" in result.folder.name
    assert (result.folder / ".hydra" / "config.yaml").is_file()
    with pytest.raises(InputError, match="did you mean 'steps'"):
        diffexp.run(["stepz=3"])
    with pytest.raises(InputError, match="steps is\nimpossible"):
        diffexp.run(["notes=impossible"])


def test_the_working_folder_leaves_the_path():
    keep = keep_working_folder_out
    assert keep(["/here", "/std"], "/site/diffexp", "/here") == ["/std"]
    assert keep(["/here", "/std"], "/here/diffexp", "/here") == ["/std", "/here"]
    assert keep(["/else", "/std"], "/site/diffexp", "/here") == ["/else", "/std"]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(diffexp.__path__[0]).parent)}


def python(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )


def test_the_real_command_among_files_named_like_standard_modules(tmp_path):
    for name in ("timeit", "dataclasses", "typing", "hydra", "logging"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    done = python("-m", "diffexp", "steps=abc", folder=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: steps=abc is not an integer\n")
    done = python("-m", "diffexp", "--cfg", "job", "scheduler=euler", folder=tmp_path)
    assert done.returncode == 0
    assert "scheduler:\n  name: euler\n" in done.stdout


def test_a_mistake_is_answered_before_torch_is_imported(tmp_path):
    code = (
        "import sys; from diffexp.cli import run_command\n"
        "codes = [run_command([w]) for w in ('stepz=3', 'steps=abc', 'scheduler=ddimm', 'steps=0', 'model=hub')]\n"
        "print(codes, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = python("-c", code, folder=tmp_path)
    assert done.stdout.strip() == "[2, 2, 2, 2, 2] False False"


def test_ctrl_c_is_one_line_and_exit_code_130(tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "slow.py").write_text(
        "import time, pathlib\nfrom diffexp import model\n"
        "@model\ndef slow(runtime):\n    pathlib.Path('started').touch()\n    time.sleep(60)\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-m", "diffexp", "model=slow", "tracker=none"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("error: interrupted; what was finished is in ")
    assert "Traceback" not in errors
