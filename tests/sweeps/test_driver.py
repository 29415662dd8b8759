"""The driver of a sweep over workers, with an engine that starts none."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from diffexp.errors import InputError
from diffexp.experiment.lock import lock
from diffexp.files import write_json
from diffexp.sweeps import driver as module
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.claims import FILE, Claim
from diffexp.sweeps.console import unwrapped
from diffexp.sweeps.driver import Driver
from diffexp.sweeps.engines.base import Ended
from diffexp.sweeps.engines.options import Rule
from diffexp.sweeps.failures import record_failure
from diffexp.sweeps.outcome import outcome_table
from diffexp.sweeps.record import SweepRecord
from diffexp.sweeps.work import Work, read_work
from diffexp.sweeps.workers import joined, record_end

CONFIG = {"model": {"name": "a"}, "loop": {"name": "denoise"}, "steps": 5, "num_samples": 4, "batch_size": 4}


@dataclass
class MadeUpEngine:
    """Starts workers that end at once for a reason, or that never end."""

    OPTIONS: ClassVar[Mapping[str, Any]] = {}
    RULES: ClassVar[Mapping[str, Rule]] = {}
    reason: str | None
    workers: int = 2
    started: list[int] = field(default_factory=list)
    live: list[str] = field(default_factory=list)

    def adopt(self, folder: Path) -> set[str]:
        return set()

    def start(self, folder: Path, count: int) -> None:
        self.started.append(count)
        self.live += [f"worker {sum(self.started) - number}" for number in range(count)]

    def running(self) -> int:
        return len(self.live)

    def ended(self) -> list[Ended]:
        ended, self.live = self.live, []
        return [Ended(job, self.reason) for job in ended]

    def stop(self) -> None:
        self.live = []


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.1)
    return Work(tmp_path, (), Path.cwd(), resume="resume=here")


def cells_of(work: Work, count: int) -> list[Cell]:
    return [Cell(number, CONFIG, work.folder / f"{number}_x", (f"seed={number}",)) for number in range(count)]


def test_workers_that_cannot_begin_are_told_and_not_started_for_ever(work, capsys):
    engine = MadeUpEngine("ended with exit code 2: /plugins/mine.py does not exist")
    (lost,) = Driver(engine, work).run(cells_of(work, 5), more=False)
    assert engine.started == [2] * len(engine.started)
    assert sum(engine.started) <= 8
    assert lost.folder == str(work.folder)
    assert lost.message.startswith("5 of 5 cells never began: worker ")
    assert ": ended with exit code 2: /plugins/mine.py does not exist (see " in lost.message
    assert not lost.input_error
    assert "worker 1: ended with exit code 2: /plugins/mine.py does not exist\n" in capsys.readouterr().out


def test_no_more_workers_are_started_than_there_are_cells(work):
    engine = MadeUpEngine("lost", workers=8)
    Driver(engine, work).run(cells_of(work, 3), more=False)
    assert engine.started[0] == 3


def test_a_slow_start_of_workers_is_no_reason_to_look_seldom(work, monkeypatch):
    now, pauses = [0.0], []
    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0], sleep=pauses.append)
    monkeypatch.setattr(module, "time", clock)
    (cell,) = cells = cells_of(work, 1)
    engine = MadeUpEngine(None)

    def start(folder: Path, count: int) -> None:
        now[0] += 60.0
        write_json(cell.folder / "run.json", {"status": "done"})
        engine.live = ["worker 1"]

    engine.start = start
    assert Driver(engine, work).run(cells, more=False) == []
    assert pauses == [module.POLL_SECONDS]


def test_a_slow_disk_is_looked_at_seldom_but_goes_on_being_looked_at(work, monkeypatch):
    now, pauses = [0.0], []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=pauses.append))
    (cell,) = cells = cells_of(work, 1)
    engine = MadeUpEngine(None)

    def ended(seconds: float) -> list[Ended]:
        now[0] += seconds
        if len(pauses) == 2:
            write_json(cell.folder / "run.json", {"status": "done"})
        return []

    for seconds, pause in ((0.5, 5.0), (30.0, module.MOST_SECONDS)):
        engine.ended = partial(ended, seconds)
        cell.folder.joinpath("run.json").unlink(missing_ok=True)
        pauses.clear()
        assert Driver(engine, work).run(cells, more=False) == []
        assert pauses == [pause, pause]


def test_a_cell_that_nobody_goes_on_with_is_lost(work, capsys):
    first, second, third, *_ = cells = cells_of(work, 4)
    engine = MadeUpEngine("killed by signal 9 (out of memory?)")
    driver = Driver(engine, work)

    def die(folder: Path, count: int) -> None:
        write_json(first.folder / "run.json", {"status": "done"})
        record_failure(second.folder, ValueError("no"))
        write_json(third.folder / "run.json", {"status": "running"})
        with joined(work.folder, "worker 2", {}) as journal:
            name, title = journal.worker.name, journal.worker.title
        write_json(third.folder / FILE, vars(Claim(1, 0, 0, name, title)))
        record_end(work.folder, name, "its node failed")

    engine.start = die
    lost, unbegun = driver.run(cells, more=False)
    assert Path(lost.folder) == third.folder
    assert lost.message.startswith("lost with worker 2 (process ")
    assert lost.message.endswith("): its node failed")
    assert unbegun.message.startswith("1 of 4 cells never began")
    assert json.loads((third.folder / "run.json").read_text())["status"] == "interrupted"
    with lock(cells[3].folder):
        write_json(cells[3].folder / "run.json", {"status": "running"})
        table = outcome_table(work.folder, SweepRecord([], [[]] * 5))
    assert table and unwrapped(table).splitlines() == [
        f"5 cells in {work.folder}",
        "  done           1",
        "  failed         1  1_x",
        "  lost           1  2_x",
        "  running        1  3_x",
        "  not begun      1",
        f"  finish the sweep with: python -m diffexp resume={work.folder}",
    ]


def test_a_new_sweep_begins_anew_and_a_resumed_one_goes_on(work):
    cells = cells_of(work, 2)

    def leave_behind() -> None:
        write_json(cells[0].folder / "run.json", {"status": "done", "config": {}})
        write_json(cells[1].folder / "run.json", {"status": "failed", "config": {}, "error": "ValueError: no"})
        record_failure(cells[1].folder, ValueError("no"))

    leave_behind()
    Driver(MadeUpEngine("lost"), replace(work, attempt=2)).run(cells, more=False)
    # It was not whole: there are no samples.
    assert json.loads((cells[0].folder / "run.json").read_text())["status"] == "interrupted"
    assert not (cells[1].folder / ".hydra" / "failure.json").exists()
    leave_behind()
    Driver(MadeUpEngine("lost"), work).run(cells, more=False)
    assert not (cells[0].folder / "run.json").exists()
    assert read_work(work.folder).cells == tuple(cells)


def test_a_new_sweep_is_refused_where_workers_of_another_still_run(work):
    told = r"workers of an earlier sweep still run in .* \(1 of them\); wait until they have ended"
    with joined(work.folder, "worker 1", {}), pytest.raises(InputError, match=told):
        Driver(MadeUpEngine(None), work)


def test_a_search_adds_cells_and_says_when_it_is_finished(work):
    driver, cells = Driver(MadeUpEngine("lost"), work), cells_of(work, 3)
    driver.run(cells[:2], more=True)
    driver.run(cells[2:], more=True)
    assert (read_work(work.folder).cells, read_work(work.folder).more) == (tuple(cells), True)
    driver.close()
    assert not read_work(work.folder).more
