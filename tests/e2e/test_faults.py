"""Faults of the machine, of plugins and of users, as a user meets them: one line each, and a record that is true."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from diffexp.experiment.finished import finished_run
from tests.e2e.test_sweeps import ENVIRONMENT, LIMIT, command, finish, rows, start

IMAGES = "model=mixture model.shape=[1,64,64] steps=5 num_samples=2000 batch_size=20 tracker=none metric=cost"


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def check_full(folder: Path, told: str, code: int, out: str, errors: str) -> None:
    assert (code, errors.count("\n")) == (1, 1), errors
    assert errors.startswith(f"error: OSError: {told} (make room, then go on with resume={folder})")
    assert "Traceback" not in out
    assert (record(folder)["status"], record(folder)["error"].partition(" (")[0]) == ("failed", f"OSError: {told}")


def test_a_limit_on_the_size_of_files(tmp_path: Path):
    running = subprocess.Popen(
        [sys.executable, "-m", "diffexp", *IMAGES.split(), "model.shape=[1,256,256]", "hydra.run.dir=run"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    check_full(tmp_path / "run", "[Errno 27] File too large", *finish(running))


@pytest.fixture
def small_disk(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only the administrator may mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_ends_a_run_in_one_line(small_disk: Path):
    told = "[Errno 28] No space left on device"
    check_full(small_disk / "run", told, *command(small_disk, *IMAGES.split(), "hydra.run.dir=run"))
    assert (small_disk / "run" / "samples" / "000000.png").is_file()


@pytest.mark.parametrize("workers", ["null", "1"])
def test_a_full_disk_ends_a_sweep_in_a_line_a_cell(small_disk: Path, workers: str):
    words = ["-m", *IMAGES.split(), "scheduler=ddim,ddpm", "hydra.sweep.dir=sweep", f"workers={workers}"]
    code, _, errors = command(small_disk, *words)
    sweep = small_disk / "sweep"
    told = f"OSError: [Errno 28] No space left on device (make room, then go on with resume={sweep})"
    assert (code, errors.splitlines()) == (
        1,
        [
            f"error: 2 of the sweep's runs failed, see {sweep}",
            f"  0_mixture_ddim_5: {told}",
            f"  1_mixture_ddpm_5: {told}",
        ],
    )
    assert [(row["status"], row["error"]) for row in rows(sweep)] == [("failed", told)] * 2


def plugin(folder: Path, text: str) -> None:
    (folder / "plugins").mkdir()
    (folder / "plugins" / "mine.py").write_text(text)


EXIT = "import sys\nfrom diffexp import loop\n@loop\ndef leaving(batch):\n    sys.exit(0)\n"


@pytest.mark.parametrize("launcher", ["none", "batched", "basic"])
def test_a_plugin_that_exits_is_a_failure(tmp_path: Path, launcher: str):
    plugin(tmp_path, EXIT)
    words = ["model=mixture", "loop=leaving", "steps=2", "tracker=none", "metric=cost"]
    sweep = ["-m", f"hydra/launcher={launcher}", "seed=0,1", "hydra.sweep.dir=out"]
    code, _, errors = command(tmp_path, *words, *(["hydra.run.dir=out"] if launcher == "none" else sweep))
    told = "RuntimeError: sys.exit(0) was called (plugins/mine.py:5)"
    assert code == 1
    assert told in errors
    records = [json.loads(path.read_text()) for path in tmp_path.glob("out/**/run.json")]
    assert [(found["status"], found["error"]) for found in records] == [("failed", told)] * len(records)
    assert len(records) == (1 if launcher == "none" else 2)


HANG = """
import threading
from diffexp import loop
from diffexp.components.loops.denoise import denoise

@loop
def hanging(batch, *, hangs: bool = False):
    if hangs:
        threading.Event().wait()
    return denoise(batch)
"""


def test_ctrl_c_answers_at_once_while_a_cell_hangs(tmp_path: Path):
    plugin(tmp_path, HANG)
    words = "-m model=mixture loop=hanging loop.hangs=true,false steps=2 num_samples=4 tracker=none metric=cost"
    running, sweep = start(tmp_path, *words.split(), "hydra.sweep.dir=sweep"), tmp_path / "sweep"
    cell, deadline = sweep / "1_mixture_ddim_2", time.monotonic() + LIMIT
    while finished_run(cell) is None and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    assert running.stdout is not None
    while "stopping: " not in (line := running.stdout.readline()):
        assert line
    assert line.endswith(f"go on later with: python -m diffexp resume={sweep}\n")
    os.killpg(running.pid, signal.SIGINT)
    code, _, errors = finish(running)
    assert (code, errors) == (130, f"error: interrupted; what was finished is in {sweep}\n")
    assert [row["status"] for row in rows(sweep)] == ["interrupted", "done"]


def test_two_runs_in_one_folder(tmp_path: Path):
    words = "model=mixture model.shape=[1,8,8] steps=1000 num_samples=100000 batch_size=4 tracker=none metric=cost"
    first, folder = start(tmp_path, *words.split(), "hydra.run.dir=run"), tmp_path / "run"
    deadline = time.monotonic() + LIMIT
    while not (folder / "samples" / "000003.png").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    before = (folder / ".hydra" / "overrides.yaml").read_text()
    code, out, errors = command(tmp_path, *words.split(), "seed=1", "hydra.run.dir=run")
    os.killpg(first.pid, signal.SIGINT)
    assert (code, out) == (2, "")
    assert errors.startswith(f"error: process {first.pid} on ")
    assert f" is still running in {folder} since " in errors
    assert errors.count("\n") == 1
    assert finish(first)[0] == 130
    assert (record(folder)["seed"], record(folder)["status"]) == (0, "interrupted")
    assert (folder / ".hydra" / "overrides.yaml").read_text() == before


def test_a_plugin_folder_without_init_has_relative_imports(tmp_path: Path):
    folder = tmp_path / "plugins" / "mine"
    folder.mkdir(parents=True)
    (folder / "helper.py").write_text("SCALE = 1.0\n")
    (folder / "solver.py").write_text(
        "from diffexp import scheduler\nfrom .helper import SCALE\n@scheduler\n"
        "def mine(denoise, x, levels, noise):\n    return SCALE * denoise(x, levels[0])\n"
    )
    words = ["model=mixture", "scheduler=mine", "steps=2", "num_samples=2", "tracker=none", "metric=cost"]
    assert command(tmp_path, *words)[::2] == (0, "")
    sweep = ["-m", "hydra/launcher=basic", "seed=0,1", "hydra.sweep.dir=sweep"]
    assert command(tmp_path, *words, *sweep)[::2] == (0, "")
