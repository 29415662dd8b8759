"""The lines that runs leave behind."""

import json
from pathlib import Path
from typing import Any

import pytest

from diffexp import RunInfo, SampleRow, discover


def info(folder: Path) -> RunInfo:
    return RunInfo(folder, {"steps": 5}, "mine", None, "run", ["a"], None, False)


def follow(tracker: Any, folder: Path) -> None:
    tracker.start(info(folder))
    tracker.log_step(0, {"sigma": 1.0})
    tracker.log_images("pictures", {"grid": folder / "grid.png"})
    tracker.log_samples([SampleRow(0, "7", 123, None)])
    tracker.finish({"nfe": 5.0}, "done")


@pytest.mark.parametrize("steps", [False, True])
def test_an_event_is_a_line(tmp_path: Path, steps: bool) -> None:
    file = tmp_path / "new" / "runs.jsonl"
    tracker = discover().build("tracker", {"name": "jsonl", "path": str(file), "steps": steps})
    follow(tracker, tmp_path / "first")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", *["step"] * steps, "images", "samples", "finish"]
    assert {line["run"] for line in lines} == {str(tmp_path / "first")}
    assert tracker.run_id == "first"
    assert lines[0]["config"] == {"steps": 5}
    assert lines[-2]["samples"] == [[0, "7", 123]]
    assert (lines[-1]["status"], lines[-1]["nfe"]) == ("done", 5.0)


def test_runs_share_a_file(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    trackers = [discover().build("tracker", {"name": "jsonl", "path": str(file)}) for _ in range(2)]
    for number, tracker in enumerate(trackers):
        tracker.start(info(tmp_path / str(number)))
    for tracker in trackers:
        tracker.finish({}, "interrupted")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(Path(line["run"]).name, line["event"]) for line in lines] == [
        ("0", "start"),
        ("1", "start"),
        ("0", "finish"),
        ("1", "finish"),
    ]
