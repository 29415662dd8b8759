"""Cells that many workers share: each is run once, a dead worker's go on, and one that kills its workers has failed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffexp.catalog.discover import Catalog
from diffexp.experiment.lock import Watch, lock
from diffexp.files import write_json
from diffexp.sweeps import claims as module
from diffexp.sweeps.cell import Cell, model_key
from diffexp.sweeps.claims import FILE, MOST_LOSSES, Claim, Claims, WorkersLost, read_claim, status_of
from diffexp.sweeps.failures import record_failure
from diffexp.sweeps.source import Elsewhere
from diffexp.sweeps.work import Work
from diffexp.sweeps.workers import joined, live_workers, read_workers, record_end

ONE, OTHER = ({"model": {"name": name}, "device": "cpu", "dtype": "auto", "compile": False} for name in "ab")
COMMON = {"loop": {"name": "denoise"}, "steps": 5, "num_samples": 4}
CLAIM_AND_DIE = """
import os, sys
from pathlib import Path
from diffexp.catalog.discover import discover
from diffexp.sweeps.claims import Claims
from diffexp.sweeps.work import read_work
from diffexp.sweeps.workers import joined
work = read_work(Path(sys.argv[1]))
with joined(work.folder, "worker 7", {}) as journal:
    held = Claims(work, discover(), journal).claim(work.cells[int(sys.argv[2])])
    held.__enter__()
    print("claimed", flush=True)
    if sys.argv[3:]:
        sys.stdin.read()
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """Four cells of one model and two of another."""
    for name, seconds in (("POLL_SECONDS", 0.01), ("COUNT_SECONDS", 0.01), ("REASON_SECONDS", 0.2)):
        monkeypatch.setattr(module, name, seconds)
    configs: list[dict[str, Any]] = [{**model, **COMMON} for model in (ONE, ONE, OTHER, ONE, OTHER, ONE)]
    cells = tuple(Cell(number, config, tmp_path / f"{number}_x") for number, config in enumerate(configs))
    made = Work(tmp_path, cells, Path.cwd())
    made.write()
    return made


@pytest.fixture
def join(work: Work, catalog: Catalog) -> Iterator[Callable[[str], Claims]]:
    with ExitStack() as stack:
        yield lambda job: Claims(work, catalog, stack.enter_context(joined(work.folder, job, {})))


def die_with(work: Work, number: int) -> None:
    """Let a process claim a cell and die."""
    words = [sys.executable, "-c", CLAIM_AND_DIE, str(work.folder), str(number)]
    assert subprocess.run(words, capture_output=True).returncode == -9


def take_all(claims: Claims, model: str, alone: bool = False) -> list[int]:
    return [cell.number for cell in iter(lambda: claims.take(model, alone), None)]


def test_a_worker_stays_with_its_model_and_another_takes_the_other(work, join):
    first, second = join("worker 1"), join("worker 2")
    model = first.next_model("")
    assert model == model_key(work.cells[0].config)
    cell = first.take(model, alone=False)
    assert cell == work.cells[0]
    with first.claim(cell):
        assert read_claim(cell.folder) is not None
        assert second.next_model("") == model_key(OTHER)  # 2 open cells for it, against 3 of the first for two workers
        assert second.next_model(model) == model
    assert read_claim(cell.folder) is None
    assert live_workers(work.folder, Watch()) == {worker.name for worker in read_workers(work.folder)}
    assert len(read_workers(work.folder)) == 2


def test_a_cell_is_run_by_one_worker_and_no_worker_takes_more_than_its_share(work, join):
    first, second = join("worker 1"), join("worker 2")
    model = model_key(work.cells[0].config)
    taken = take_all(first, model)
    assert taken == [0, 1, 3]  # of six cells for two workers
    with first.claim(work.cells[0]), pytest.raises(Elsewhere), second.claim(work.cells[0]):
        pass
    with lock(work.cells[1].folder):
        assert 1 not in take_all(second, model)


def test_what_is_done_or_has_failed_is_not_run_again(work, join):
    claims, model = join("worker 1"), model_key(work.cells[0].config)
    with claims.claim(work.cells[1]):
        write_json(work.cells[1].folder / "run.json", {"status": "done"})
    with claims.claim(work.cells[3]):
        record_failure(work.cells[3].folder, ValueError("no"))
    assert [status_of(work.cells[number].folder) for number in (0, 1, 3)] == [None, "done", "failed"]
    assert take_all(claims, model) == [0, 5]
    with pytest.raises(Elsewhere), claims.claim(work.cells[1]):
        pass
    replace(work, attempt=2).write()
    (work.cells[3].folder / ".hydra" / "failure.json").unlink()  # as the driver of a resumed sweep does
    again = join("worker 2")
    assert 3 in take_all(again, model)


def test_cells_that_others_have_done_are_told(work, catalog):
    write_json(work.cells[1].folder / "run.json", {"status": "done"})
    record_failure(work.cells[3].folder, ValueError("no"))
    told: list[Path] = []
    with joined(work.folder, "worker 1", {}) as journal:
        claims = Claims(work, catalog, journal, told.append)
        take_all(claims, model_key(work.cells[0].config))
    assert told == [work.cells[1].folder]
    (worker,) = read_workers(work.folder)
    assert worker.ended == {1: "done", 3: "failed"}


def test_a_worker_ends_when_nothing_is_left_and_waits_for_what_others_run(work, join, monkeypatch):
    claims = join("worker 1")
    for cell in work.cells[1:]:
        write_json(cell.folder / "run.json", {"status": "done"})
    words = [sys.executable, "-c", CLAIM_AND_DIE, str(work.folder), "0", "stay"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        monkeypatch.setattr(module, "IDLE_SECONDS", 0.1)
        assert claims.next_model("") is None
        monkeypatch.setattr(module, "IDLE_SECONDS", 300.0)
        other.kill()
        other.wait()
        model = claims.next_model("")
        assert model == model_key(work.cells[0].config)
        assert claims.take(model, alone=False) is None
        assert claims.take(model, alone=True) == work.cells[0]  # so that it takes no other along again
    write_json(work.cells[0].folder / "run.json", {"status": "done"})
    claims.ended(work.cells[0], "done")
    assert claims.next_model(model) is None


def test_a_cell_that_kills_its_workers_fails_with_the_reason(work, join):
    folder = work.cells[4].folder
    for _ in range(MOST_LOSSES):
        die_with(work, 4)
    claims = join("worker 8")
    left = read_claim(folder)
    assert left is not None
    record_end(work.folder, left.worker, "killed by signal 9 (out of memory?)")
    title = f"worker 7 (process {left.title.partition('process ')[2]}"
    with pytest.raises(WorkersLost) as raised, claims.claim(work.cells[4]):
        raise AssertionError("it must not run")
    assert str(raised.value) == (
        f"{MOST_LOSSES} workers were lost with this cell, at last {title}: killed by signal 9 (out of memory?)"
    )
    stated = json.loads((folder / "run.json").read_text())
    assert (stated["status"], stated["error"]) == ("failed", f"WorkersLost: {raised.value}")
    assert read_claim(folder) is None


@pytest.mark.parametrize(("attempt", "drawn", "losses"), [(1, 8, 2), (1, 16, 1), (2, 8, 0)])
def test_a_cell_that_gets_on_is_not_blamed(work, catalog, attempt, drawn, losses):
    """Losses count as long as no further batch is finished, within one attempt at the sweep."""
    folder = work.cells[0].folder
    write_json(folder / "run.json", {"status": "running", "drawn": drawn})
    write_json(folder / FILE, Claim(1, 1, 8, "gone", "worker 1").__dict__)
    with joined(work.folder, "worker 2", {}) as journal:
        claims = Claims(replace(work, attempt=attempt), catalog, journal)
        with claims.claim(work.cells[0]):
            found = read_claim(folder)
            assert found is not None
            assert (found.losses, found.drawn, found.title) == (losses, drawn, journal.worker.title)


def test_cells_that_a_search_adds_are_waited_for_while_its_driver_lives(work, join):
    model = model_key(work.cells[0].config)
    for cell in work.cells:
        write_json(cell.folder / "run.json", {"status": "done"})
    searching = replace(work, more=True)
    searching.write()
    claims = join("worker 1")
    with lock(work.folder):
        more = Cell(6, {**ONE, **COMMON}, work.folder / "6_x")
        replace(searching, cells=(*work.cells, more)).write()
        os.utime(work.folder / "work.json", ns=(1, 1))
        assert claims.next_model(model) == model
        assert claims.take(model, alone=False) == more
        write_json(more.folder / "run.json", {"status": "done"})
        claims.ended(more, "done")
    assert claims.next_model(model) is None  # nobody adds any more
