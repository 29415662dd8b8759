"""Batched sweeps, whose cells share model calls, with several trackers that log while they sample."""

import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import diffexp
from diffexp.catalog.discover import discover
from tests.components.trackers.test_wandb_online import PLUGIN
from tests.wandb_server import WandbServer

SOURCE = Path(__file__).parents[3]
CELLS: dict[str, Any] = {
    "model": {"name": "mixture", "shape": [1, 8, 8]},
    "scheduler": ["ddim", "heun"],
    "steps": [4, 6],
    "num_samples": 6,
    "batch_size": 3,
    "metric": ["cost", "wasserstein"],
}
W2 = "sliced_wasserstein2/samples"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "halts.py").write_text(PLUGIN)
    plugins = [SOURCE / "plugins" / "jsonl.py", tmp_path / "halts.py"]
    monkeypatch.setenv("DIFFEXP_PLUGINS", os.pathsep.join(map(str, plugins)))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of a run."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_every_cell_is_a_run_of_its_own_in_every_tracker(
    server: WandbServer, place: Path, wait: Callable[[Callable[[], object]], None]
) -> None:
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    seen: list[int] = []
    wait(lambda: seen.append(server.wait_for(lambda: any(r.values("steps/x_std") for r in server.runs.values()), 60)))
    swept = diffexp.sweep(**CELLS, loop="halting", tracker=["wandb", "tensorboard", "trackio", "jsonl"])
    assert [run.status for run in swept.runs] == ["done"] * 4
    assert seen == [True], "rows arrived before the sampling of the first batch had ended"
    kept = {one["id"]: one for one in SQLiteStorage.get_run_records("diffexp")}
    cells = {run.name: run for run in server.runs.values() if run.attributes["jobType"] == "cell"}
    assert len(cells) == 4
    logged = [json.loads(line) for line in (place / "outputs" / "runs.jsonl").read_text().splitlines()]
    for result in swept.runs:
        ids, nfe, steps = result.record["tracker_ids"], int(result.metrics["nfe"]), result.config["steps"]
        online = cells[ids["wandb"]]
        lines = [line for line in logged if line["run"] == str(result.folder.absolute())]
        scalars = tensorboard(result.folder)
        logs = SQLiteStorage.get_logs("diffexp", kept[ids["trackio"]]["name"], run_id=ids["trackio"])
        # Each has the steps of its own plan, whichever cells were in the same model call.
        spreads = [row["steps/x_std"] for row in online.history if "steps/x_std" in row]
        assert len(spreads) == nfe and online.config["steps"] == steps and online.exit_code == 0
        assert [value for _, value in scalars["steps/x_std"]] == pytest.approx(spreads, rel=1e-5)
        assert [row["steps/x_std"] for row in logs if "steps/x_std" in row] == pytest.approx(spreads, rel=1e-5)
        assert [row["samples_done"] for row in online.history if "samples" in row] == [3, 6]
        # And its own results.
        own = pytest.approx(result.metrics[W2], rel=1e-6)
        assert online.summary[W2] == own and online.summary["status"] == "done"
        assert scalars[f"metrics/{W2}"][-1][1] == own and [row[W2] for row in logs if W2 in row][-1] == own
        assert [line["done"] for line in lines if line["event"] == "batch"] == [3, 6]
        assert (lines[-1]["event"], lines[-1]["status"]) == ("finish", "done") and lines[-1][W2] == own
        (grid,) = [row["path"] for row in online.values("pictures/grid")]
        with Image.open(io.BytesIO(online.files[grid])) as sent, Image.open(result.folder / "grid.png") as image:
            assert sent.convert("RGB").tobytes() == image.convert("RGB").tobytes()
    assert len({run.config["facts"]["plan_sha256"] for run in cells.values()}) == 4


def test_one_command_uploads_the_runs_of_all_cells(
    server: WandbServer, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    swept = diffexp.sweep(**CELLS, tracker="wandb")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "wandb sync" in line]
    assert not server.runs
    command = line.partition("upload the runs of all cells with: ")[2]
    monkeypatch.delenv("WANDB_MODE")
    wandb = shlex.quote(str(Path(sys.executable).with_name("wandb")))
    done = subprocess.run(["sh", "-c", command.replace("wandb", wandb, 1)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    uploaded = {run.name: run for run in server.runs.values()}
    assert {run.record["wandb_id"] for run in swept.runs} <= uploaded.keys()
    for run in swept.runs:
        assert uploaded[run.record["wandb_id"]].summary[W2] == pytest.approx(run.metrics[W2])


@pytest.fixture
def wait(place: Path) -> Callable[[Callable[[], object]], None]:
    """Lets the loop ``halting`` call something before the fourth evaluation of the first batch."""

    def set_up(then: Callable[[], object]) -> None:
        discover().get("loop", "halting").load().__globals__["REACHED"][:] = [then]

    return set_up
