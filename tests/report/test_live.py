"""The page of a sweep while it runs: what is read, what it says, when it is written, what it costs."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffexp.experiment.lock import RenewalTimes, lock
from diffexp.report import NAME, live_page, write_report
from diffexp.report.live import SHARE, LivePage
from diffexp.report.live_report import RunCache, SweepPage, with_waiting
from diffexp.report.progress_state import state_of
from diffexp.sweeps.results import read_cells
from tests.made_up import HOSTILE, cell_of, made_up_cell

CELLS = [["scheduler=ddim", "steps=5"], ["scheduler=ddim", "steps=10"], ["scheduler=euler", "steps=5"]]


def begin(sweep: Path, cells: list[list[str]] = CELLS) -> None:
    sweep.mkdir(parents=True, exist_ok=True)
    (sweep / "sweep.json").write_text(json.dumps({"overrides": [], "cells": cells}))


def cell(sweep: Path, number: int, status: str = "done", **more: Any) -> Path:
    scheduler, steps = (word.partition("=")[2] for word in CELLS[number])
    config = {"scheduler": {"name": scheduler}, "steps": int(steps)}
    return made_up_cell(sweep, f"{number}_{scheduler}_{steps}", config, status=status, **more)


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def data(text: str) -> dict[str, Any]:
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def test_cells_are_done_running_or_waiting_with_links_to_their_samples(tmp_path: Path):
    begin(tmp_path)
    cell(tmp_path, 0)
    page = SweepPage(tmp_path, tmp_path / NAME)
    with lock(cell(tmp_path, 1, "running", pictures=1)):
        text = page.html(3.0)
    assert text
    assert "1 of 3 cells done, 1 running, 1 waiting" in text
    assert "Running: 1_ddim_10 (1 of 24 samples)." in text
    found = data(text)
    assert [one["status"] for one in found["cells"]] == ["done", "running", "waiting"]
    assert [one["label"] for one in found["cells"]] == ["ddim · 5 steps", "ddim · 10 steps", "euler · 5 steps"]
    sample = "0_ddim_5/samples/000000.png"
    assert [one["pictures"][0] for one in found["cells"]] == [sample, "1_ddim_10/samples/000000.png", None]
    assert (tmp_path / sample).is_file()
    assert not found["shrunk"]
    assert not any(found["pairs"].values())
    assert "data:image" not in text


def test_a_page_is_made_again_only_when_something_is_new(tmp_path: Path):
    begin(tmp_path)
    page = SweepPage(tmp_path, tmp_path / NAME)
    folder = cell(tmp_path, 0, "running", pictures=1)
    with lock(folder):
        assert page.html(3.0)
        assert page.html(3.0) is None
        (folder / "samples" / "000001.png").write_bytes((folder / "samples" / "000000.png").read_bytes())
        assert "000001.png" in (page.html(3.0) or "")
        assert page.html(3.0) is None
    assert "1 interrupted" in (page.html(3.0) or ""), "the lock is gone, and the status did not change"
    cell(tmp_path, 2)
    assert "1 of 3 cells done" in (page.html(3.0) or "")


def test_an_unchanged_page_is_made_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begin(tmp_path)
    cell(tmp_path, 0)
    page = SweepPage(tmp_path, tmp_path / NAME)
    assert page.html(3.0)
    monkeypatch.setattr("diffexp.report.live_report.UNCHANGED_SECONDS", 0.0)
    assert page.html(3.0), "so that it tells that the sweep goes on"


def test_runs_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begin(tmp_path)
    folder, read = cell(tmp_path, 0), list[Path]()
    from diffexp.report import live_report

    original = live_report.read_cell
    monkeypatch.setattr(live_report, "read_cell", lambda folder: read.append(folder) or original(folder))
    cache = RunCache()
    for _ in range(3):
        assert read_cells(tmp_path, cache.read)[0].status == "done"
    assert read == [folder]
    (folder / "metrics.json").write_text('{"fid/mnist_cnn": 7.5}')
    assert cache.read(folder).metrics == {"fid/mnist_cnn": 7.5}


def test_damaged_files_and_hostile_texts_make_a_page(tmp_path: Path):
    begin(tmp_path)
    cell(tmp_path, 0, "failed", error=HOSTILE)
    (cell(tmp_path, 1) / "metrics.json").write_text("{")
    (cell(tmp_path, 2) / "run.json").write_text("")
    text = SweepPage(tmp_path, tmp_path / NAME).html(3.0)
    assert text
    assert "<script>alert" not in text


def test_shares_and_words():
    cells = [cell_of({"num_samples": 8}, f"sweep/{number}") for number in range(2)]
    state = state_of(cells, 3.0)
    assert (state.summary, state.share, state.over) == ("2 of 2 cells done", 1.0, True)
    assert state_of(cells[:1], 3.0).summary == "1 of 1 cell done"
    assert state_of([], 3.0).share == 0.0
    assert with_waiting(cells) == cells


def test_a_lock_counts_while_it_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    times = RenewalTimes()
    assert not times.is_held(tmp_path)
    with lock(tmp_path):
        assert times.is_held(tmp_path)
        with pytest.raises(Exception, match="still running"), lock(tmp_path):
            pass
    assert not times.is_held(tmp_path)
    (tmp_path / ".lock").write_text("{}")  # of a process that was killed a minute ago
    os.utime(tmp_path / ".lock", (time.time() - 60, time.time() - 60))
    assert not times.is_held(tmp_path)
    os.utime(tmp_path / ".lock", (time.time() - 40, time.time() - 40))
    assert times.is_held(tmp_path), "renewed, by a machine whose clock is late"
    monkeypatch.setattr("diffexp.experiment.lock.PATIENCE_SECONDS", 0.0)
    assert not times.is_held(tmp_path)


def test_asking_does_not_keep_others_from_acquiring(tmp_path: Path):
    """As a thread beside cells that begin: ``Watch.is_held`` would reserve the name for a moment."""
    times, ended = RenewalTimes(), threading.Event()

    def ask() -> None:
        while not ended.is_set():
            times.is_held(tmp_path)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(200):
            with lock(tmp_path):
                pass
    finally:
        ended.set()
        thread.join()


# the thread


def test_the_page_is_there_while_the_sweep_runs_and_replaced_at_its_end(tmp_path: Path):
    begin(tmp_path, CELLS[:2])
    page = LivePage(tmp_path, tmp_path / NAME, every=0.01)
    page.start()
    assert not (tmp_path / NAME).exists(), "no cell has begun"
    cell(tmp_path, 0)
    until((tmp_path / NAME).exists)
    assert 'id="live"' in (tmp_path / NAME).read_text()
    page.stop()
    cell(tmp_path, 1)
    write_report([tmp_path])
    assert 'id="live"' not in (tmp_path / NAME).read_text()
    assert [file.name for file in tmp_path.glob(".report*")] == [], "nothing half-written is left"


def test_a_page_that_is_ready_too_late_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begin(tmp_path)
    cell(tmp_path, 0)
    asked, made = threading.Event(), threading.Event()

    def html(self: SweepPage, every: float) -> str:
        asked.set()
        made.wait(30)
        return "late"

    monkeypatch.setattr(SweepPage, "html", html)
    page = LivePage(tmp_path, tmp_path / NAME, every=0.01)
    page.start()
    assert asked.wait(30)
    threading.Timer(0.1, made.set).start()
    page.stop()
    assert not (tmp_path / NAME).exists()


def test_it_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begin(tmp_path)
    cell(tmp_path, 0)

    def html(self: SweepPage, every: float) -> None:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    monkeypatch.setattr(SweepPage, "html", html)
    page = LivePage(tmp_path, tmp_path / NAME, every=0.001)
    page._update()
    assert page._wait >= 0.02 / SHARE
    monkeypatch.setattr(SweepPage, "html", lambda self, every: None)
    page._update()
    assert page._wait < 0.02 / SHARE, "the next is soon again where the last cost little"


@pytest.mark.parametrize(("error", "goes_on"), [(OSError("disk full"), True), (ZeroDivisionError("odd"), False)])
def test_errors_cost_the_page_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, goes_on: bool
):
    begin(tmp_path)
    cell(tmp_path, 0)
    calls = list[float]()

    def html(self: SweepPage, every: float) -> str:
        calls.append(every)
        raise error

    monkeypatch.setattr(SweepPage, "html", html)
    monkeypatch.setattr("diffexp.report.live.EVERY_SECONDS", 0.01)
    page = LivePage(tmp_path, tmp_path / NAME, every=0.01)
    page.start()
    until(lambda: len(calls) > (2 if goes_on else 0))
    page.stop()
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ([] if goes_on else ["no page of the running sweep: ZeroDivisionError: odd"])


def test_an_interrupt_ends_the_thread(tmp_path: Path):
    begin(tmp_path)
    with pytest.raises(KeyboardInterrupt), live_page(tmp_path):
        raise KeyboardInterrupt
    assert not [thread for thread in threading.enumerate() if thread.name == "live page"]
