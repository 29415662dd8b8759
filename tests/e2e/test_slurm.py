"""Sweeps on a SLURM of two nodes as a user runs them: preempted, cancelled, killed, resumed."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.cluster_sweeps import LIMIT, LONG, SWEEP, Workplace, pictures, rows
from tests.runs import images, record, same_but_for_rounding
from tests.slurm_cluster import MISSING, SlurmCluster, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]
SLURM = "hydra/launcher=slurm hydra.launcher.jobs=2 hydra.launcher.mem_gb=1 hydra.launcher.cpus_per_task=1".split()


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    pytest.importorskip("submitit")
    cluster = SlurmCluster(kill_wait=10)
    yield cluster
    cluster.stop()


@pytest.fixture
def work(slurm: SlurmCluster, tmp_path: Path) -> Workplace:
    return Workplace(tmp_path, slurm.environment)


def preempt(slurm: SlurmCluster, work: Workplace, job: str) -> None:
    """Signal a job as SLURM does before it gives its node to another, wait until it is requeued, and let it start."""
    slurm.run("scancel", "--signal=USR2", job)
    work.pace(0.5)
    wait_for(lambda: slurm.jobs().get(job) == "PENDING", f"{job} is not requeued: {slurm.jobs()}")
    work.pace(LONG)
    time.sleep(3)  # within the second of its end, the node refuses a job
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")  # SLURM itself waits for two minutes


def test_a_sweep_goes_on_after_preemption_a_cancelled_job_and_a_dead_driver(slurm: SlurmCluster, work: Workplace):
    cells = [*SWEEP.split(), "loop.tag=range(24)", *SLURM]
    whole, sweep = work.folder / "whole", work.folder / "sweep"
    code, out, errors = work.start(*cells, "hydra.sweep.dir=whole").finish()
    assert (code, errors) == (0, ""), out
    assert [row["status"] for row in rows(whole)] == ["done"] * 24
    assert len(work.notes("load")) <= 2
    expected = {f"{tag}:{index}" for tag in range(24) for index in range(4)}
    assert work.drawn() == dict.fromkeys(expected, 1)
    assert not slurm.jobs()
    work.forget()

    work.pace(LONG)
    driver = work.start(*cells, "hydra.sweep.dir=sweep")
    work.wait_for_draws(driver, workers=2)
    driver.send(signal.SIGKILL)
    first, second = sorted(slurm.jobs())
    slurm.run("scancel", second)
    work.pace(0.5)
    wait_for(lambda: {*slurm.jobs()} == {first}, f"{second} is not cancelled")
    for _ in range(3):
        seen = len(work.notes("draw"))
        preempt(slurm, work, first)
        work.wait_for_draws(None, workers=1, after=seen)
    driver = work.start("resume=sweep")
    wait_for(lambda: len(slurm.jobs()) == 2, f"no second job: {driver.output()}", LIMIT)
    assert first in slurm.jobs()
    work.pace(0)
    code, out, errors = driver.finish()
    assert (code, errors) == (0, ""), out
    assert [row["status"] for row in rows(sweep)] == ["done"] * 24
    assert work.drawn() == dict.fromkeys(expected, 1), "a sample was drawn twice"
    assert not slurm.jobs()
    found, wanted = pictures(sweep), pictures(whole)
    assert found.keys() == wanted.keys()
    assert all(same_but_for_rounding(found[name], wanted[name]) for name in wanted)


def test_what_ends_jobs_is_named_and_their_cells_go_on(slurm: SlurmCluster, work: Workplace):
    limits = ["hydra.launcher.timeout_min=10", "hydra.launcher.max_num_timeout=0"]
    work.pace(LONG)
    driver = work.start(*SWEEP.split(), "loop.tag=range(12)", *SLURM, *limits, "hydra.sweep.dir=sweep")
    pids = {note.task: note.pid for note in work.wait_for_draws(driver, workers=2)}
    array = sorted(slurm.jobs())[0].partition("_")[0]
    os.kill(pids["0"], signal.SIGKILL)  # as the kernel does when memory runs out
    slurm.run("scancel", "--signal=USR2", f"{array}_1")  # as SLURM does before the time limit
    work.pace(0)
    code, out, errors = driver.finish()
    assert (code, errors) == (0, ""), out
    assert [row["status"] for row in rows(work.folder / "sweep")] == ["done"] * 12
    assert f"SLURM job {array}_0 (process {pids['0']} on " in out
    assert "killed by signal 9 (out of memory?) on n" in out
    assert "reached its time limit (hydra.launcher.timeout_min) on n" in out
    assert not slurm.jobs()


def test_ctrl_c_ends_the_jobs_and_a_node_that_fails_loses_nothing(slurm: SlurmCluster, work: Workplace):
    work.pace(LONG)
    driver = work.start(*SWEEP.split(), "loop.tag=range(12)", *SLURM, "hydra.sweep.dir=sweep")
    work.wait_for_draws(driver, workers=2)
    driver.send(signal.SIGINT)
    work.pace(1)
    code, out, errors = driver.finish()
    assert (code, errors.count("\n")) == (130, 1), errors
    assert f"error: interrupted; what was finished is in {work.folder / 'sweep'}" in errors
    assert not slurm.jobs()
    drawn = work.drawn()
    assert {row["status"] for row in rows(work.folder / "sweep")} <= {"interrupted", "missing", "done"}

    work.pace(LONG)
    seen = len(work.notes("draw"))
    driver = work.start("resume=sweep")
    work.wait_for_draws(driver, workers=2, after=seen)
    slurm.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    work.pace(0)
    code, out, errors = driver.finish()
    assert (code, errors) == (0, ""), out
    assert [row["status"] for row in rows(work.folder / "sweep")] == ["done"] * 12
    assert {sample: work.drawn()[sample] for sample in drawn} == drawn, "a finished sample was drawn again"
    assert not slurm.jobs()


def test_a_run_by_two_jobs_is_that_of_one_process(slurm: SlurmCluster, work: Workplace):
    """Also where one of them is preempted; what SLURM refuses leaves nothing behind."""
    run = "model=noted loop=slow steps=4 num_samples=24 batch_size=2 metric=cost tracker=none".split()
    refused = [*SLURM, "hydra.launcher.partition=nosuch"]
    for words in ([*run, "hydra.run.dir=outputs/run"], [*SWEEP.split(), "steps=3,4", "hydra.sweep.dir=outputs/sweep"]):
        code, out, errors = work.start(*words, *refused).finish()
        assert (code, errors.count("\n")) == (2, 1), errors
        assert errors.startswith("error: SLURM refused the jobs: ") and "invalid partition specified: nosuch" in errors
        assert "finish the sweep" not in out and "stopping" not in out
        assert not [*(work.folder / "outputs").iterdir()]
    code, out, errors = work.start(*run, "hydra.run.dir=alone").finish()
    assert (code, errors) == (0, ""), out
    work.forget()
    work.pace(LONG)
    driver = work.start(*run, *SLURM, "workers=2", "hydra.run.dir=run")
    work.wait_for_draws(driver, workers=2)
    work.pace(0.5)
    wait_for(lambda: min(Counter(note.task for note in work.notes("draw")).values()) > 1, "a job has stopped to draw")
    work.pace(LONG)
    preempted = {sample for note in work.notes("draw") if note.task == "1" for sample in note.samples}
    slurm.run("scancel", "--signal=USR2", sorted(slurm.jobs())[1])
    work.pace(0)
    code, out, errors = driver.finish()
    assert (code, errors) == (0, ""), out
    assert {*work.drawn()} == {f"0:{index}" for index in range(24)}
    assert {sample for sample, count in work.drawn().items() if count > 1} <= preempted, "the batch in work at most"
    found, wanted = images(work.folder / "run"), images(work.folder / "alone")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[index], wanted[index]) for index in wanted)
    assert len({worker["job"] for worker in record(work.folder / "run")["workers"]}) == 2
    assert not slurm.jobs()
