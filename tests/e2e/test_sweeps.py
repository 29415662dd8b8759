"""Sweeps as a user runs them: killed, interrupted, resumed, each in a process of its own."""

import csv
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import diffexp
from diffexp.sweeps.record import NAME
from tests import fork_server
from tests.runs import images, same_but_for_rounding

PLACES = [str(Path(diffexp.__path__[0]).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, PLACES))}
LIMIT = 300
"""Seconds after which a command hangs."""
SWEEP = "-m model=mixture model.shape=[1,8,8] scheduler=ddim,ddpm steps=20,30 batch_size=4 tracker=none metric=cost"


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return fork_server.Popen(
        [sys.executable, "-m", "diffexp", *words],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, errors = running.communicate(timeout=LIMIT)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    return running.returncode, out, errors


def command(folder: Path, *words: str) -> tuple[int, str, str]:
    return finish(start(folder, *words))


def samples(sweep: Path) -> dict[str, tuple[int, int]]:
    """Every finished sample of a sweep, with what tells whether its file was written again."""
    found = {str(path.relative_to(sweep)): path.stat() for path in sweep.glob("*/samples/[0-9]*.png")}
    return {name: (file.st_ino, file.st_mtime_ns) for name, file in found.items()}


def rows(sweep: Path) -> list[dict[str, Any]]:
    with (sweep / "results.csv").open() as file:
        return list(csv.DictReader(file))


def kill_when(running: subprocess.Popen[str], sweep: Path, count: int, delay: float) -> None:
    """SIGKILL once the sweep has ``count`` more samples, or as soon as it has ended, ``delay`` seconds later."""
    goal, deadline = len(samples(sweep)) + count, time.monotonic() + LIMIT
    while running.poll() is None and len(samples(sweep)) < goal and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(delay)
    if running.poll() is None:
        os.killpg(running.pid, signal.SIGKILL)
    running.communicate()


def check_kills(folder: Path, kills: int, num_samples: int, seed: int) -> None:
    """Kill a sweep again and again; in the end it is what it would have been."""
    dice = random.Random(seed)
    words = [*SWEEP.split(), f"num_samples={num_samples}"]
    code, _, errors = command(folder, *words, "hydra.sweep.dir=whole")
    assert code == 0, errors
    sweep, known = folder / "killed", {}
    for kill in range(kills):
        again = (sweep / NAME).exists()
        running = start(folder, "resume=killed") if again else start(folder, *words, "hydra.sweep.dir=killed")
        kill_when(running, sweep, dice.randint(0, 2 * 4 * num_samples // kills), dice.uniform(0, 0.5))
        now = samples(sweep)
        assert {name: now.get(name) for name in known} == known, f"kill {kill}: a finished sample was drawn again"
        known = now
    code, _, errors = command(folder, "resume=killed")
    assert code == 0, errors
    now = samples(sweep)
    assert {name: now[name] for name in known} == known
    assert len(now) == 4 * num_samples
    assert [row["status"] for row in rows(sweep)] == ["done"] * 4
    for cell in sorted(path for path in sweep.iterdir() if path.is_dir()):
        expected, found = images(folder / "whole" / cell.name), images(cell)
        assert expected.keys() == found.keys()
        assert all(same_but_for_rounding(found[index], expected[index]) for index in found)
        stated = json.loads((cell / "run.json").read_text())
        assert (stated["status"], stated["config"]["num_samples"]) == ("done", num_samples)
        assert (cell / "metrics.json").is_file()
        assert (cell / "grid.png").is_file()


def test_a_sweep_that_is_killed_goes_on(tmp_path: Path):
    check_kills(tmp_path, kills=2, num_samples=40, seed=0)


@pytest.mark.slow
def test_a_sweep_that_is_killed_eight_times_goes_on(tmp_path: Path):
    check_kills(tmp_path, kills=8, num_samples=160, seed=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_all_cells_and_resume_finishes_them(number: signal.Signals, tmp_path: Path):
    words = [*SWEEP.split(), "num_samples=100", "hydra.sweep.dir=sweep"]
    running, sweep = start(tmp_path, *words), tmp_path / "sweep"
    deadline = time.monotonic() + LIMIT
    while len(samples(sweep)) < 8 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(running.pid, number)
    code, out, errors = finish(running)
    assert (code, errors) == (130, f"error: interrupted; what was finished is in {sweep}\n")
    assert "Traceback" not in out
    assert f"cells write what they have finished; go on later with: python -m diffexp resume={sweep}\n" in out
    assert {row["status"] for row in rows(sweep)} <= {"interrupted", "missing", "done"}
    assert "interrupted" in {row["status"] for row in rows(sweep)}
    known = samples(sweep)
    code, out, errors = command(tmp_path, "resume=sweep")
    assert (code, errors) == (0, "")
    assert [row["status"] for row in rows(sweep)] == ["done"] * 4
    assert {name: stamp for name, stamp in samples(sweep).items() if name in known} == known
    code, out, errors = command(tmp_path, "resume=sweep")
    assert (code, errors) == (0, "")
    assert "4 of them are done already" in out


def test_a_failing_cell_is_told_and_can_be_resumed(tmp_path: Path):
    plugin = tmp_path / "plugins" / "fickle.py"
    plugin.parent.mkdir()
    good = (
        "from diffexp import loop\nfrom diffexp.components.loops.denoise import denoise\n"
        "@loop\ndef fickle(batch):\n    return denoise(batch)\n"
    )
    plugin.write_text(good.replace("    return", "    assert batch.sampler.nfe != 7, 'unlucky'\n    return"))
    words = "-m model=mixture loop=fickle steps=5,7,9 num_samples=4 tracker=none hydra.sweep.dir=sweep metric=cost"
    code, _, errors = command(tmp_path, *words.split())
    sweep = tmp_path / "sweep"
    assert code == 1
    assert errors.splitlines() == [
        f"error: 1 of the sweep's runs failed, see {sweep}",
        "  1_mixture_ddim_7: AssertionError: unlucky (plugins/fickle.py:5)",
    ]
    assert [row["status"] for row in rows(sweep)] == ["done", "failed", "done"]
    plugin.write_text(good)
    code, _, errors = command(tmp_path, "resume=sweep")
    assert (code, errors) == (0, "")
    assert [row["status"] for row in rows(sweep)] == ["done"] * 3


def test_a_changed_config_is_refused_and_nothing_is_touched(tmp_path: Path):
    conf = tmp_path / "conf" / "experiment"
    conf.mkdir(parents=True)
    (conf / "mine.yaml").write_text("# @package _global_\nmodel: {std: 0.1}\n")
    words = "--config-dir=conf -m experiment=mine model=mixture steps=5,6 num_samples=4 tracker=none metric=cost"
    code, _, errors = command(tmp_path, *words.split(), "hydra.sweep.dir=sweep")
    assert (code, errors) == (0, "")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").glob("*/*")}
    (conf / "mine.yaml").write_text("# @package _global_\nmodel: {std: 0.2}\n")
    code, _, errors = command(tmp_path, "resume=sweep")
    cell = tmp_path / "sweep" / "0_mixture_ddim_5"
    told = f"error: resume={cell}: model.std was 0.1 and is now 0.2, which gives other samples\n"
    assert (code, errors) == (2, told)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").glob("*/*")} == before


def test_hydras_own_launcher_runs_and_resumes_too(tmp_path: Path):
    words = "-m hydra/launcher=basic model=mixture steps=5,6 num_samples=4 tracker=none metric=cost"
    code, _, errors = command(tmp_path, *words.split(), "hydra.sweep.dir=sweep")
    assert (code, errors) == (0, "")
    sweep = tmp_path / "sweep"
    record = sweep / "1_mixture_ddim_6" / "run.json"
    before = (sweep / "0_mixture_ddim_5" / "run.json").stat().st_mtime_ns
    record.write_text(record.read_text().replace('"done"', '"running"'))
    code, _, errors = command(tmp_path, "resume=sweep")
    assert (code, errors) == (0, "")
    assert [row["status"] for row in rows(sweep)] == ["done", "done"]
    assert (sweep / "0_mixture_ddim_5" / "run.json").stat().st_mtime_ns == before


def test_a_cell_of_an_experiment_names_the_command_that_runs_it_alone(tmp_path: Path):
    words = "experiment=compare_schedulers scheduler=ddim max_nfe=4,5 model=mixture model.shape=[1,8,8] num_samples=2"
    code, _, errors = command(tmp_path, *words.split(), "metric=cost", "tracker=none", "hydra.sweep.dir=sweep")
    assert (code, errors) == (0, "")
    cell = tmp_path / "sweep" / "1_mixture_ddim_nfe5"
    python, *alone = shlex.split(json.loads((cell / "run.json").read_text())["command"])
    assert (python, alone[:2], alone[-1]) == ("python", ["-m", "diffexp"], "hydra.mode=RUN")
    code, _, errors = command(tmp_path, *alone[2:])
    assert (code, errors) == (0, "")
    (again,) = tmp_path.glob("outputs/*/*_mixture_ddim_nfe5_*")
    expected = images(cell)
    assert all(same_but_for_rounding(image, expected[index]) for index, image in images(again).items())


def test_a_search_finds_options_under_a_budget(tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = "experiment=search model=mixture metric=[cost,wasserstein] objective=sliced_wasserstein2/samples max_nfe=6"
    few = "hydra.sweeper.n_trials=6 hydra.sweeper.n_jobs=3 tracker=none num_samples=200 guidance_scale=1"
    code, out, errors = command(tmp_path, *words.split(), *few.split(), "hydra.sweep.dir=sweep")
    assert code == 0, errors
    assert len(rows(tmp_path / "sweep")) == 6
    assert all(float(row["nfe"]) <= 6 for row in rows(tmp_path / "sweep"))
    best = min(float(row["sliced_wasserstein2/samples"]) for row in rows(tmp_path / "sweep"))
    assert f"Best value: {best}" in out
    code, _, errors = command(tmp_path, "resume=sweep")
    assert (code, errors.count("\n")) == (2, 1)


def test_a_run_goes_on_with_the_configs_that_it_was_started_with(tmp_path: Path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nmodel: {std: 0.1}\n")
    words = "--config-dir=conf experiment=mine model=mixture steps=5 num_samples=4 tracker=none metric=cost"
    assert command(tmp_path, *words.split(), "hydra.run.dir=first")[::2] == (0, "")
    code, _, errors = command(tmp_path, "resume=first", "num_samples=6", "hydra.run.dir=second")
    assert (code, errors) == (0, "")
    assert json.loads((tmp_path / "second" / "run.json").read_text())["config"]["model"]["std"] == 0.1
    assert len((tmp_path / "second" / "samples" / "points.csv").read_text().splitlines()) == 7


def test_cells_have_their_folders_side_by_side(tmp_path: Path):
    words = [
        "-m",
        "model=mixture",
        "steps=5,6",
        "tracker=none",
        "hydra.sweep.subdir=${scheduler.name}/${hydra.job.num}",
    ]
    code, out, errors = command(tmp_path, *words)
    assert (code, errors) == (
        2,
        "error: hydra.sweep.subdir=ddim/0: the folders of the cells lie side by side; write it without /\n",
    )
    assert "no report" not in out
