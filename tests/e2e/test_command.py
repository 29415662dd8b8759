"""The command as a user runs it, in a process of its own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import diffexp
from tests import fork_server

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(diffexp.__path__[0]).parent)}
LIMIT = 120
"""Seconds after which a command hangs."""


def command(folder: Path, *words: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-m", "diffexp", *words],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def points(folder: Path) -> torch.Tensor:
    with (folder / "samples" / "points.csv").open() as file:
        return torch.tensor([[float(cell) for cell in row[1:]] for row in list(csv.reader(file))[1:]])


def test_one_run_with_an_offline_record_at_wandb(tmp_path: Path):
    done = command(tmp_path, "model=gaussian", "steps=5", "num_samples=8", "tracker=wandb", "name=first")
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = tmp_path.glob("outputs/2*/*")
    assert folder.name.split("_")[1:4] == ["gaussian", "ddim", "5"]
    stated = record(folder)
    assert (stated["status"], stated["nfe"]) == ("done", 5)
    words = "model=gaussian steps=5 num_samples=8 tracker=wandb name=first"
    assert stated["command"] == f"python -m diffexp {words}"
    (logged,) = folder.glob(f"wandb/offline-run-*/run-{stated['wandb_id']}.wandb")
    written = logged.read_bytes()
    assert b"wasserstein2/exact" in written, "the metrics"
    assert b"first" in written, "the name"
    assert (folder / "diffexp.log").is_file()
    assert {path.name for path in (folder / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert f"\n{folder}\n" in done.stdout
    assert "nfe=5" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_a_sweep_has_a_folder_a_cell_and_a_table(tmp_path: Path):
    words = ["-m", "scheduler=ddim,euler", "steps=5,10", "model=mixture", "tracker=none", "num_samples=8"]
    done = command(tmp_path, *words)
    assert (done.returncode, done.stderr) == (0, "")
    (sweep,) = tmp_path.glob("outputs/multirun/*/*")
    with (sweep / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    asked = [("ddim", "5"), ("ddim", "10"), ("euler", "5"), ("euler", "10")]
    assert [(row["scheduler.name"], row["steps"]) for row in rows] == asked
    assert [row["nfe"] for row in rows] == ["5", "10", "5", "10"]
    assert {row["status"] for row in rows} == {"done"}
    for number, (row, (scheduler, steps)) in enumerate(zip(rows, asked)):
        assert row["folder"] == f"{number}_mixture_{scheduler}_{steps}"
        assert (sweep / row["folder"] / "grid.png").is_file()
    assert done.stdout.endswith(f"results: {sweep / 'results.csv'}\nreport: {sweep / 'report.html'}\n")


PLUGINS = {
    "halfway.py": """
from diffexp import scheduler

@scheduler
def halfway(denoise, x, levels, noise, *, share: float = 1.0):
    for here, there in levels.pairs():
        x0, eps = denoise.predict(x, here)
        x = there.alpha * x0 + share * there.sigma * eps
    return x
""",
    "samplers.py": """
import torch
from diffexp import scheduler

@scheduler
@torch.no_grad()
def sample_straight(model, x, sigmas, extra_args=None, callback=None, disable=None, s_noise=1.0):
    extra_args = {} if extra_args is None else extra_args
    s_in = x.new_ones([x.shape[0]])
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * s_in, **extra_args)
        d = (x - denoised) / sigmas[i]
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "denoised": denoised})
        x = x + d * (sigmas[i + 1] - sigmas[i])
    return x
""",
}


def test_a_plugin_dropped_into_the_folder_is_used_at_once(tmp_path: Path):
    (tmp_path / "plugins").mkdir()
    for name, text in PLUGINS.items():
        (tmp_path / "plugins" / name).write_text(text)
    done = command(
        tmp_path, "-m", "scheduler=halfway,sample_straight,ddim", "steps=7", "model=mixture", "tracker=none", "seed=3"
    )
    assert (done.returncode, done.stderr) == (0, "")
    cells = sorted(tmp_path.glob("outputs/multirun/*/*/*_mixture_*"))
    assert [cell.name.removesuffix("_7")[10:] for cell in cells] == ["halfway", "sample_straight", "ddim"]
    expected = points(cells[2])  # both are DDIM in other words
    for cell in cells[:2]:
        assert (cell / "plan.csv").is_file()
        assert (points(cell) - expected).abs().max() < 1e-5
    done = command(tmp_path, "scheduler=halfway", "scheduler.share=half")
    assert (done.returncode, done.stderr) == (2, "error: scheduler.share=half is not a number\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_or_a_cluster_that_ends_the_job_keeps_what_was_finished(number: signal.Signals, tmp_path: Path):
    words = ["model=mixture", "model.shape=[1,8,8]", "steps=1000", "num_samples=100000", "batch_size=4"]
    running = fork_server.Popen(
        [sys.executable, "-m", "diffexp", *words],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + LIMIT
    while not list(tmp_path.glob("outputs/*/*/samples/000003.png")) and time.monotonic() < deadline:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    os.killpg(running.pid, number)  # as a terminal does: also to W&B's process
    try:
        out, errors = running.communicate(timeout=LIMIT)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)  # it would go on for an hour
    assert running.returncode == 130, errors
    assert "Traceback" not in out + errors
    (folder,) = tmp_path.glob("outputs/2*/*")
    assert errors == f"error: interrupted; what was finished is in {folder}\n"
    assert f"go on with: python -m diffexp resume={folder}\n" in out
    stated = record(folder)
    assert (stated["status"], stated["error"], stated["nfe"]) == ("interrupted", None, 1000)
    finished = sorted(path.name for path in (folder / "samples").iterdir())
    assert finished == [f"{index:06d}.png" for index in range(len(finished))]
    assert (folder / "grid.png").is_file()
    assert json.loads((folder / "metrics.json").read_text())["nfe"] == 1000
    (logged,) = folder.glob(f"wandb/offline-run-*/run-{stated['wandb_id']}.wandb")
    assert b"interrupted" in logged.read_bytes()


def test_a_wrong_key_is_one_line_and_needs_no_torch(tmp_path: Path):
    done = command(tmp_path, "stepz=3", flags=("-X", "importtime"))
    assert done.returncode == 2
    *imports, message = done.stderr.splitlines()
    assert message == "error: unknown key 'stepz'; did you mean 'steps'?"
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in imports}
    assert "diffexp" in imported
    assert not imported & {"torch", "numpy", "diffusers", "wandb", "torchmetrics", "PIL"}
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
