"""Several trackers of one run: each in a thread of its own, and none in the way of another or of sampling."""

import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from diffexp.components.trackers.base import RunInfo
from diffexp.components.trackers.none import NoTracker
from diffexp.components.trackers.several import Trackers
from diffexp.experiment import live as live_module
from diffexp.experiment.live import Live


class Recorder(NoTracker):
    """Keeps its calls with their threads; has some of the optional methods."""

    def __init__(self, run_id: str | None = None) -> None:
        self.run_id = run_id
        self.calls: list[tuple[str, Any]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()

    def _note(self, what: str, *given: Any) -> None:
        self.gate.wait(30)
        self.threads.add(threading.get_ident())
        self.calls.append((what, given))

    def start(self, info: RunInfo) -> None:
        self._note("start", info.name)

    def log_step(self, step: int, values: dict[str, float]) -> None:
        self._note("step", step, values)

    def log_preview(self, step: int, image: Any) -> None:
        self._note("preview", step, image.size)

    def finish(self, summary: dict[str, float], status: str) -> None:
        self._note("finish", status)


class Failing(Recorder):
    def log_step(self, step: int, values: dict[str, float]) -> None:
        raise OSError("disk full")


def info(name: str) -> RunInfo:
    return RunInfo(Path(), {}, f"for {name}", None, "run", [], None, sweep=False)


def test_each_has_one_thread_and_its_own_information(caplog: pytest.LogCaptureFixture) -> None:
    known = {"first": Recorder("1"), "second": Failing(), "third": Recorder("3")}
    trackers = Trackers(known)
    trackers.start(info)
    assert trackers.run_ids == {"first": "1", "third": "3"}
    trackers.log_step(0, {"x": 1.0})
    trackers.log_metrics(1, {"fid": 2.0})  # which none of them has
    with caplog.at_level(logging.WARNING):
        trackers.finish({}, "done")
    assert caplog.messages == ["tracker Failing failed in log_step, the run goes on without it: OSError: disk full"]
    assert known["third"].calls == [("start", ("for third",)), ("step", (0, {"x": 1.0})), ("finish", ("done",))]
    threads = [tracker.threads for tracker in known.values()]
    assert all(len(own) == 1 for own in threads) and len(set.union(*threads)) == 3
    assert threading.get_ident() not in set.union(*threads)


def test_a_slow_tracker_delays_no_step_and_loses_no_scalar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "SECONDS", 0.0)
    slow, quick = Recorder(), Recorder()
    trackers = Trackers({"slow": slow, "quick": quick})
    live = Live(trackers, seed=0)
    slow.gate.clear()
    x0 = torch.zeros(2, 1, 4, 4)
    live.step(0, {"x": torch.tensor(0.0), "y": 1}, x0)
    while not trackers.is_behind:  # as soon as both calls wait for the slow one
        time.sleep(0.01)
    for step in range(1, 50):
        live.step(step, {"x": torch.tensor(float(step)), "y": 1}, x0 if live.is_due else None)
    slow.gate.set()
    live.finish({}, "done")
    for tracker in (slow, quick):
        steps = [given for what, given in tracker.calls if what == "step"]
        assert steps == [(step, {"x": float(step), "y": 1.0}) for step in range(50)]
        previews = [given for what, given in tracker.calls if what == "preview"]
        assert len(previews) == 1, "previews are made while all trackers keep up"
        assert tracker.calls[-1] == ("finish", ("done",))


def test_without_trackers_nothing_is_due() -> None:
    live = Live(Trackers({}), seed=0)
    assert not live and not live.is_due
    live.batch([0], [""], torch.zeros(1, 1, 4, 4), done=1)
    live.finish({"fid": 1.0}, "done")
