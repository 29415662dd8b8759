"""What a SLURM job runs: a worker in a process of its own, which a signal asks to end while the job is requeued."""

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from diffexp.errors import INTERRUPTED
from diffexp.sweeps.engines.base import exit_reason, worker_command

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

POLL_SECONDS = 0.2
LINGER_SECONDS = 300.0
"""How long a job whose worker was asked to end waits for SLURM, which requeues no job that has ended by itself."""
DRAWING_SHARE = 0.75
"""The part of a worker's patience in which it draws the batch that is in work; the rest is for writing."""


class WorkerFailed(RuntimeError):
    """The worker has ended without finishing; the message is the reason."""


class SlurmWorker:
    """The function that submitit calls in every task of a job; SLURM signals its process and the worker's alike.

    Args:
        folder: the folder of the sweep or the run.
        patience: seconds that the worker may take to write what it has finished before the job is requeued.
    """

    def __init__(self, folder: Path, patience: float) -> None:
        self._folder = folder
        self._patience = patience

    def __call__(self) -> None:
        """Run the worker.

        Raises:
            WorkerFailed: it did not end by itself with exit code 0.
        """
        process = subprocess.Popen(
            worker_command(self._folder, grace=DRAWING_SHARE * self._patience), env=task_environment()
        )
        self._pid = process.pid
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        except KeyboardInterrupt:  # the driver ends the sweep
            process.wait()
            return
        code = process.wait()
        if code == INTERRUPTED:
            _wait_for_requeue()
        if code:
            raise WorkerFailed(exit_reason(code))

    def checkpoint(self) -> "DelayedSubmission":
        """Wait for the worker, which has got the signal too; submitit requeues the job with what this returns."""
        from submitit.helpers import DelayedSubmission

        deadline, state = time.monotonic() + self._patience, os.WEXITED | os.WNOWAIT | os.WNOHANG
        # Without the locks of ``Popen``, which the code that the signal has interrupted may hold.
        while time.monotonic() < deadline and os.waitid(os.P_PID, self._pid, state) is None:
            time.sleep(POLL_SECONDS)
        return DelayedSubmission(SlurmWorker(self._folder, self._patience))


def _wait_for_requeue() -> None:
    """Wait until SLURM kills the job, so that it can requeue it; a job that was cancelled ends at once."""
    deadline = time.monotonic() + LINGER_SECONDS
    question = ["squeue", "--noheader", f"--jobs={os.environ['SLURM_JOB_ID']}", "--format=%T"]
    while time.monotonic() < deadline:
        answer = subprocess.run(question, capture_output=True, text=True)
        if answer.stdout.strip() != "RUNNING":
            return
        time.sleep(1.0)


def task_environment() -> dict[str, str]:
    """The variables of a worker: its share of the cores that the job has on this node, and of GPUs that tasks share."""
    found = {**os.environ}
    if "SLURM_CPUS_PER_TASK" not in found:
        cores, tasks = (int(found.get(name, "1")) for name in ("SLURM_CPUS_ON_NODE", "SLURM_NTASKS_PER_NODE"))
        found["SLURM_CPUS_PER_TASK"] = str(max(1, cores // tasks))
    gpus, number = found.get("CUDA_VISIBLE_DEVICES", "").split(","), int(found.get("SLURM_LOCALID", "0"))
    if len(gpus) > 1 and number < len(gpus):
        found["CUDA_VISIBLE_DEVICES"] = gpus[number]
    return found
