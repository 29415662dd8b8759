"""One run by several processes, as a user starts them: workers that are killed, a driver that is killed, torchrun."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import diffexp
from diffexp.experiment.lock import Watch
from diffexp.files import read_json
from diffexp.sweeps.workers import live_workers
from tests import fork_server
from tests.runs import metrics, record

PLACES = [str(Path(diffexp.__path__[0]).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
LIMIT = 300
"""Seconds after which a command hangs."""
PLUGIN = '''
"""Denoising that waits for a test."""

import os
import time
from pathlib import Path

from diffexp import loop, sample


@loop(solves_from_noise=True)
def gated(batch, *, gate: str = ""):
    """All but the first batch wait for the file ``open`` in the folder ``gate``; who waits leaves its number there."""
    while gate and batch.indices[0] > 0 and not Path(gate, "open").exists():
        Path(gate, str(os.getpid())).touch()
        time.sleep(0.05)
    return sample(batch.sampler, batch.network, batch.noise() * batch.sampler.start_std, batch.noise)
'''
RUN = "model=mixture model.shape=[1,8,8] loop=gated steps=5 batch_size=4 tracker=none metric=[cost,wasserstein]".split()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    file = tmp_path_factory.mktemp("plugins") / "gated.py"
    file.write_text(PLUGIN)
    path = os.pathsep.join(filter(None, PLACES))
    return {**os.environ, "PYTHONPATH": path, "DIFFEXP_PLUGINS": str(file.parent)}


@pytest.fixture(scope="module")
def start(environment) -> Callable[..., subprocess.Popen[str]]:
    """Start a module as a command in a folder, forked; ``subprocess.Popen`` starts Python itself."""

    def start(folder: Path, *words: str, popen: Any = fork_server.Popen) -> subprocess.Popen[str]:
        return popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


def finish(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, errors = running.communicate(timeout=LIMIT)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    return running.returncode, out, errors


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def samples(folder: Path) -> dict[str, bytes]:
    """The pixels of each image, which also has as text the command that it was made with."""
    return {
        path.name: pixels(path) if path.suffix == ".png" else path.read_bytes()
        for path in (folder / "samples").iterdir()
    }


def pixels(file: Path) -> bytes:
    with Image.open(file) as image:
        return f"{image.mode} {image.size}".encode() + image.tobytes()


def waiting(gate: Path) -> set[int]:
    """The processes that wait at the gate."""
    return {int(path.name) for path in gate.iterdir()}


def drawn(folder: Path) -> int:
    return sum(worker["samples"] for worker in record(folder)["workers"])


@pytest.fixture(scope="module")
def alone(tmp_path_factory, start) -> Path:
    """The run of 60 samples by one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    code, _, errors = finish(start(folder.parent, "diffexp", *RUN, "num_samples=60", f"hydra.run.dir={folder}"))
    assert code == 0, errors
    return folder


@pytest.fixture
def gate(tmp_path) -> Path:
    (tmp_path / "gate").mkdir()
    return tmp_path / "gate"


def holder(folder: Path) -> int:
    """The process that has locked a folder."""
    return read_json(folder / ".lock").get("pid", 0)


def test_a_run_goes_on_whoever_is_killed(tmp_path, start, alone, gate):
    """Its owner and the driver at once; then a worker joins by hand, and the run is resumed while both draw."""
    folder = tmp_path / "run"
    words = [*RUN, "num_samples=60", f"loop.gate={gate}", "workers=2", f"hydra.run.dir={folder}"]
    driver = start(tmp_path, "diffexp", *words)
    until(lambda: len(waiting(gate)) == 2)
    owner = until(lambda: holder(folder))
    assert owner in waiting(gate) and owner != driver.pid
    os.kill(owner, signal.SIGKILL)
    os.kill(driver.pid, signal.SIGKILL)
    finish(driver)
    joined = start(tmp_path, "diffexp.sweeps", str(folder))
    until(lambda: joined.pid in waiting(gate))
    until(lambda: holder(folder) == joined.pid)  # it owns the run now
    resumed = start(tmp_path, "diffexp", f"resume={folder}", "workers=2")
    until(lambda: holder(folder / ".workers") == resumed.pid)
    (gate / "open").touch()
    code, _, errors = finish(resumed)
    assert code == 0, errors
    assert finish(joined)[0] == 0
    assert record(folder)["status"] == "done"
    assert samples(folder) == samples(alone), "equal to the last bit"
    assert record(folder)["drawn"] == drawn(folder) == 60, "nothing is drawn twice"
    assert len(record(folder)["workers"]) == 3
    expected, found = metrics(alone), metrics(folder)
    for name in ("nfe", "forward_passes", "sliced_wasserstein2/samples"):
        assert found[name] == pytest.approx(expected[name], rel=1e-9)
    assert not (tmp_path / "outputs").exists(), "it went on in its folder"


def test_an_interrupted_command_stops_its_workers(tmp_path, start, gate):
    folder = tmp_path / "run"
    words = [*RUN, "num_samples=60", f"loop.gate={gate}", "workers=2", f"hydra.run.dir={folder}"]
    driver = start(tmp_path, "diffexp", *words)
    until(lambda: len(waiting(gate)) == 2)
    os.kill(driver.pid, signal.SIGINT)
    code, out, errors = finish(driver)
    assert code == 130
    assert f"go on later with: python -m diffexp resume={folder}" in out
    assert errors.splitlines()[-1] == f"error: interrupted; what was finished is in {folder}"
    assert live_workers(folder, Watch()) == set()
    assert (record(folder)["status"], record(folder)["drawn"]) == ("interrupted", 4)
    assert not (folder / ".hydra" / "failure.json").exists()


def test_torchrun(tmp_path, start, alone, gate):
    """Two ranks, of which the first is killed and started again."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1", "-m", "diffexp"]
    words = [*launcher, *RUN, "num_samples=60", f"loop.gate={gate}"]
    running = start(tmp_path, *words, popen=subprocess.Popen)
    until(lambda: len(waiting(gate)) == 2)
    (folder,) = tmp_path.glob("outputs/2*/*")
    os.kill(until(lambda: holder(folder)), signal.SIGKILL)
    until(lambda: len(waiting(gate)) == 4)
    (gate / "open").touch()
    code, out, errors = finish(running)
    assert code == 0, errors
    assert [*tmp_path.glob("outputs/2*/*")] == [folder], "they go on in the same one"
    assert (record(folder)["status"], record(folder)["drawn"]) == ("done", 60)
    assert {worker["job"] for worker in record(folder)["workers"]} == {"rank 0", "rank 1"}
    assert drawn(folder) == 60
    assert samples(folder) == samples(alone)
    assert out.count(f"{folder}\n") == 1, "one rank speaks for all"


SCRIPT = """
import sys

import diffexp

for words in (["seed=0", "workers=2"], ["seed=1"]):
    result = diffexp.run([*sys.argv[1:], *words])
    print(result.folder, result.status, result.metrics["nfe"], flush=True)
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_script_has_its_runs_drawn_by_workers_or_ranks(tmp_path, start, alone, ranks):
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "script.py"]
    code, out, errors = finish(start(tmp_path, *launcher, *RUN, "num_samples=60"))
    assert code == 0, errors
    folders = sorted(tmp_path.glob("outputs/2*/*"), key=lambda folder: record(folder)["seed"])
    expected = [f"{folder} done 5" for folder in folders] * ranks
    assert sorted(line for line in out.splitlines() if line.endswith(" done 5")) == sorted(expected)
    assert samples(folders[0]) == samples(alone) != samples(folders[1])
    assert drawn(folders[0]) == 60
    assert ("workers" in record(folders[1])) == (ranks == 2)


@pytest.mark.parametrize(
    ("command", "jobs"),
    [
        (["diffexp", "-m", "workers=2"], {"worker 1", "worker 2"}),
        (
            ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "diffexp", "-m"],
            {"worker 1", "rank 1"},
        ),
    ],
    ids=["workers", "ranks"],
)
def test_idle_workers_of_a_sweep_help_with_a_large_cell(tmp_path, start, alone, gate, command, jobs):
    words = [*RUN, "num_samples=4,60", f"loop.gate={gate}", "hydra.sweep.dir=sweep"]
    running = start(tmp_path, *command, *words)
    until(lambda: len(waiting(gate)) == 2)
    (gate / "open").touch()
    code, _, errors = finish(running)
    assert code == 0, errors
    small, large = sorted((tmp_path / "sweep").glob("[01]_*"))
    assert {worker["job"] for worker in record(large)["workers"]} == jobs
    assert drawn(large) == record(large)["drawn"] == 60
    assert "workers" not in record(small), "one batch has no parts"
    assert samples(large) == samples(alone)
    assert (tmp_path / "sweep" / "results.csv").is_file()
