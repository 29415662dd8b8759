"""Sweeps over worker processes as a user runs them: killed, interrupted, joined and resumed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffexp.experiment.lock import Watch
from diffexp.sweeps.workers import Worker, live_workers, read_workers
from tests import fork_server
from tests.e2e.test_sweeps import ENVIRONMENT, LIMIT, command, finish, rows, samples, start
from tests.runs import images, record, same_but_for_rounding
from tests.slow_loop import slow_loop

CONF = "# @package _global_\nmodel: {shape: [1, 8, 8]}\nbatch_size: 4\n"
WORDS = "-m --config-dir=conf experiment=mine model=mixture loop=slow tracker=none metric=cost hydra.sweep.dir=sweep"
SCHEDULERS, STEPS = ("ddim", "ddpm"), (5, 6, 7)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with a plugin and configs; whatever still works in its sweep afterwards is killed."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "slow.py").write_text(slow_loop(0.4))
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(CONF)
    yield tmp_path
    for worker in live(tmp_path / "sweep"):
        os.kill(worker.pid, signal.SIGKILL)


def live(sweep: Path) -> list[Worker]:
    names = live_workers(sweep, Watch())
    return [worker for worker in read_workers(sweep) if worker.name in names]


def wait_for(what: Callable[[], Any], running: subprocess.Popen[str] | None = None) -> Any:
    """What a call returns once that is true."""
    deadline = time.monotonic() + LIMIT
    while not (found := what()):
        assert time.monotonic() < deadline
        assert running is None or running.poll() is None, finish(running)
        time.sleep(0.05)
    return found


def check_done(sweep: Path, known: dict[str, tuple[int, int]]) -> None:
    """All cells are done, and no sample of those that were known was drawn again."""
    assert {row["status"] for row in rows(sweep)} == {"done"}
    assert {name: stamp for name, stamp in samples(sweep).items() if name in known} == known
    assert not list(sweep.glob("*/.hydra/claim.json"))
    wait_for(lambda: not live(sweep))


def test_workers_and_the_driver_are_killed_and_others_go_on(place, run):
    sweep = place / "sweep"
    words = f"{WORDS} scheduler=ddim,ddpm steps=5,6,7 num_samples=40 workers=2"
    driver = start(place, *words.split())
    first, _ = wait_for(lambda: len(found := [one for one in live(sweep) if one.running]) == 2 and found, driver)
    wait_for(lambda: len(samples(sweep)) >= 12, driver)
    known = samples(sweep)
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: len(read_workers(sweep)) == 3, driver)

    code, out, errors = command(place, "resume=sweep")
    assert (code, out) == (2, "")
    assert errors.startswith(f"error: process {driver.pid} on ")
    assert errors.count("\n") == 1

    os.kill(driver.pid, signal.SIGKILL)
    told = finish(driver)[1]
    assert f"{first.title}: killed by signal 9 (out of memory?); it ran " in told
    known |= samples(sweep)
    by_hand = [sys.executable, "-m", "diffexp.sweeps", str(sweep), "--job", "mine"]
    joined = fork_server.Popen(
        by_hand, cwd="/", env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    code, out, errors = command(place, "resume=sweep")
    assert (code, errors) == (0, "")
    assert finish(joined)[0] == 0
    assert "mine" in {worker.job for worker in read_workers(sweep)}
    check_done(sweep, known)
    cells = [(scheduler, steps) for scheduler in SCHEDULERS for steps in STEPS]
    for number, (scheduler, steps) in enumerate(cells):
        alone = ("model=mixture", "model.shape=[1,8,8]", f"scheduler={scheduler}", f"steps={steps}", "num_samples=40")
        expected = images(run(*alone, "batch_size=4").folder)
        found = images(sweep / f"{number}_mixture_{scheduler}_{steps}")
        assert found.keys() == expected.keys()
        assert all(same_but_for_rounding(found[index], expected[index]) for index in found)


def test_ctrl_c_ends_the_workers_and_another_number_finishes(place):
    sweep = place / "sweep"
    driver = start(place, *f"{WORDS} scheduler=ddim steps=5,6,7,8 num_samples=60 hydra/launcher=local".split())
    wait_for(lambda: len(samples(sweep)) >= 8, driver)
    os.killpg(driver.pid, signal.SIGINT)
    code, out, errors = finish(driver)
    assert (code, errors) == (130, f"error: interrupted; what was finished is in {sweep}\n")
    assert "stopping: 2 workers write what they have finished; go on later with: python -m diffexp resume=" in out
    assert f"  finish the sweep with: python -m diffexp resume={sweep}\n" in out
    assert live(sweep) == []
    assert {row["status"] for row in rows(sweep)} <= {"interrupted", "missing"}
    assert not list(sweep.glob("*/.hydra/claim.json"))
    known = samples(sweep)
    code, out, errors = command(place, "resume=sweep", "workers=1")
    assert (code, errors) == (0, "")
    assert [worker.job for worker in read_workers(sweep)][-1] == "worker 3"
    check_done(sweep, known)


def test_a_cell_that_kills_its_workers_fails_and_the_others_are_done(place):
    words = f"{WORDS} loop.seconds=0 loop.kills=false,true steps=5,6 num_samples=4 workers=2"
    code, out, errors = command(place, *words.split())
    sweep = place / "sweep"
    assert code == 1
    first, *lines = errors.splitlines()
    assert first == f"error: 2 of the sweep's runs failed, see {sweep}"
    for number, line in zip((2, 3), lines, strict=True):
        cell, told = (
            f"{number}_mixture_ddim_{number + 3}_kills-true",
            "WorkersLost: 3 workers were lost with this cell, at last worker ",
        )
        assert line.startswith(f"  {cell}: {told}")
        assert line.endswith(": killed by signal 9 (out of memory?)")
        assert record(sweep / cell)["error"] == line.partition(": ")[2]
    assert [row["status"] for row in rows(sweep)] == ["done", "done", "failed", "failed"]
    names = ", ".join(f"{number}_mixture_ddim_{number + 3}_kills-true" for number in (2, 3))
    assert f"4 cells in {sweep}\n  done           2\n  failed         2  {names}\n" in out


def test_a_worker_is_asked_to_end_and_another_goes_on(place):
    """As clusters do; the signal may come twice. The batches in work are finished."""
    sweep = place / "sweep"
    driver = start(place, *f"{WORDS} steps=5,6 num_samples=40 workers=1".split())
    (first,) = wait_for(lambda: len(samples(sweep)) >= 8 and live(sweep), driver)
    for _ in range(2):
        os.kill(first.pid, signal.SIGUSR2)
    wait_for(lambda: len(read_workers(sweep)) == 2, driver)
    known = samples(sweep)
    code, out, errors = finish(driver)
    assert (code, errors) == (0, "")
    assert f"{first.title}: interrupted" in out
    log = (sweep / ".workers" / "worker-1.log").read_text()
    assert "cells write what they have finished" in log
    batches = (place / f"batches-{first.pid}").read_text()
    assert batches.count("begun") == batches.count("finished")
    assert "was lost" not in (sweep / ".workers" / "worker-2.log").read_text()
    check_done(sweep, known)


def test_everything_is_killed_and_one_process_finishes(place):
    sweep = place / "sweep"
    driver = start(place, *f"{WORDS} steps=5,6,7 num_samples=40 workers=2".split())
    wait_for(lambda: len(samples(sweep)) >= 8, driver)
    for process in (driver.pid, *(worker.pid for worker in live(sweep))):
        os.kill(process, signal.SIGKILL)
    finish(driver)
    known = samples(sweep)
    assert command(place, "resume=sweep", "hydra/launcher=batched")[::2] == (0, "")
    check_done(sweep, known)


def test_a_search_is_run_by_workers(place):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = "defaults: [override /hydra/sweeper: optuna]\nhydra: {sweeper: {params: {steps: 'range(3,9)'}}}\n"
    (place / "conf" / "experiment" / "mine.yaml").write_text(CONF + search)
    few = "hydra.sweeper.n_trials=4 hydra.sweeper.n_jobs=2 loop.seconds=0 num_samples=4 objective=nfe workers=2"
    few += " hydra.sweeper.sampler.seed=1"
    code, out, errors = command(place, *WORDS.split(), *few.split())
    assert code == 0, errors
    assert "Best value: 3.0\n" in out or "Best value: 4.0\n" in out
    sweep = place / "sweep"
    assert len(rows(sweep)) == 4
    assert len(read_workers(sweep)) == 2  # those of the first cells have gone on
    check_done(sweep, {})
