"""Trackers that keep everything on this machine; what they wrote is read back with their own packages."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffexp.catalog.discover import discover
from diffexp.errors import InputError
from diffexp.experiment.folder import RunFolder
from diffexp.experiment.run import RunResult
from diffexp.report import report_sweep
from diffexp.sweeps.results import write_results
from tests.made_up import made_up_sweep

WORDS = "model=mixture model.shape=[1,8,8] steps=5 num_samples=6 batch_size=3 metric=[cost,wasserstein]".split()
W2 = "sliced_wasserstein2/samples"
SCALARS = ("timestep", "sigma", "x_std", "x0_change_rms", "steps_per_second")


@pytest.fixture(scope="module")
def events() -> Callable[[Path], Any]:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def read(folder: Path) -> Any:
        found = reader.EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
        return found.Reload()

    return read


def texts(events: Any, tag: str) -> str:
    return events.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()


def test_a_run_in_both(run: Callable[..., RunResult], events: Callable[[Path], Any]) -> None:
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    result = run(*WORDS, "tracker=[trackio,tensorboard]", "tracker.trackio.project=both", "name=mine", "tags=[a]")
    record = RunFolder(result.folder).folder / "run.json"
    ids = json.loads(record.read_text())["tracker_ids"]
    board = events(result.folder)
    assert list(ids) == ["trackio"] and result.status == "done"

    scalars = {tag: {event.step: event.value for event in board.Scalars(tag)} for tag in board.Tags()["scalars"]}
    for name in SCALARS:
        first = 1 if name == "x0_change_rms" else 0
        assert [*scalars[f"steps/{name}"]] == [*range(first, 5)]
        assert all(map(math.isfinite, scalars[f"steps/{name}"].values()))
    assert scalars[f"metrics/{W2}"][6] == pytest.approx(result.metrics[W2], rel=1e-6)
    assert scalars[f"summary/{W2}"][0] == pytest.approx(result.metrics[W2], rel=1e-6)
    images = {tag: [event.step for event in board.Images(tag)] for tag in board.Tags()["images"]}
    assert images["steps/x0"] == [0, 1, 2, 3, 4] and images["samples"] == [3, 6]
    assert len(images["pictures/animation"]) > 3 and images["pictures/grid"] == [0]
    grid = Image.open(result.folder / "grid.png").convert("RGB")
    import io

    logged = Image.open(io.BytesIO(board.Images("pictures/grid")[0].encoded_image_string))
    assert logged.convert("RGB").tobytes() == grid.tobytes()
    assert texts(board, "samples_table").count("\n") == 7 and "000005.png" in texts(board, "samples_table")
    assert "| scheduler.name | ddim |" in texts(board, "config") and "| nfe | 5 |" in texts(board, "facts")
    assert "| name | mine |" in texts(board, "run") and texts(board, "status") == "done"
    assert "noise_std" in texts(board, "plan/plan.csv")

    (known,) = [one for one in SQLiteStorage.get_run_records("both") if one["id"] == ids["trackio"]]
    assert known["name"] == "mine"
    logs = SQLiteStorage.get_logs("both", "mine", run_id=ids["trackio"])
    assert [row["step"] for row in logs if "steps/x_std" in row] == [0, 1, 2, 3, 4]
    for name in SCALARS[:4]:
        ours = [row[f"steps/{name}"] for row in logs if f"steps/{name}" in row]
        assert ours == pytest.approx([*scalars[f"steps/{name}"].values()], rel=1e-5)
    assert [row["step"] for row in logs if "steps/x0" in row] == [0, 1, 2, 3, 4]
    batches = [row["samples"]["_value"] for row in logs if "samples" in row]
    assert [[one["index"] for one in batch] for batch in batches] == [[0, 1, 2], [3, 4, 5]]
    assert all(one["image"]["_type"] == "trackio.image" for batch in batches for one in batch)
    assert [row for row in logs if W2 in row][-1][W2] == pytest.approx(result.metrics[W2])
    (table,) = [row["samples_table"]["_value"] for row in logs if "samples_table" in row]
    assert len(table) == 6 and table[0]["seed"].isdecimal()
    assert [row["status"] for row in logs if "status" in row] == ["done"]
    config = SQLiteStorage.get_run_config("both", "mine", run_id=ids["trackio"])
    assert config and config["scheduler"]["name"] == "ddim" and config["facts"]["nfe"] == 5
    assert {one["name"] for one in SQLiteStorage.get_artifacts("both")} == {"plan"}


def test_a_sweep_is_compared(tmp_path: Path, events: Callable[[Path], Any]) -> None:
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    sweep = made_up_sweep(tmp_path / "sweep", ["euler", "ddim"], [5, 10])
    for file in sweep.glob("*/run.json"):
        Image.new("L", (64, 32)).save(file.parent / "grid.png")
        record = json.loads(file.read_text())
        trackers = {"tensorboard": {"name": "tensorboard"}, "trackio": {"name": "trackio", "project": "compared"}}
        record["config"] |= {"tracker": trackers}
        file.write_text(json.dumps(record))
    write_results(sweep)
    assert report_sweep(sweep, discover())
    board = events(sweep)
    assert texts(board, "results").count("\n") == 5
    assert len([tag for tag in board.Tags()["images"] if tag.startswith("pictures/")]) == 4
    assert any("over" in tag for tag in board.Tags()["scalars"])
    (known,) = SQLiteStorage.get_run_records("compared")
    logs = SQLiteStorage.get_logs("compared", known["name"], run_id=known["id"])
    (results,) = [row["results"]["_value"] for row in logs if "results" in row]
    assert len(results) == 4 and results[0]["pictures"]["_type"] == "trackio.image"
    assert {one["name"] for one in SQLiteStorage.get_artifacts("compared")} == {"comparison"}


@pytest.mark.parametrize("name", ["trackio", "tensorboard"])
def test_a_missing_package_is_one_line_before_sampling(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffexp.catalog.entry.find_spec", lambda package: None)
    with pytest.raises(InputError, match=f"tracker={name} needs {name}, which is not installed: pip install {name}"):
        discover().check("tracker", {"name": name})
