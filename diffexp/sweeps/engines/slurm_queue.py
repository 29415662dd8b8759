"""What SLURM says of jobs: their states, and why those that have ended did."""

import os
import pickle
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

REASONS = {
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "cancelled",
    "COMPLETED": None,
    "DEADLINE": "reached its deadline",
    "FAILED": "failed (see its log in the folder .slurm of the sweep)",
    "NODE_FAIL": "node failure",
    "OUT_OF_MEMORY": "out of memory (hydra.launcher.mem_gb)",
    "PREEMPTED": "preempted and not requeued",
    "TIMEOUT": "reached its time limit (hydra.launcher.timeout_min)",
    "UNKNOWN": "cancelled before it began, or ended long ago",
}
"""The states in which a job ends; ``UNKNOWN`` is one that SLURM has forgotten."""


@contextmanager
def as_outside_of_jobs() -> Iterator[None]:
    """Hide the variables of the job that this process is in, which jobs that it submits would inherit."""
    found = {name: os.environ[name] for name in os.environ if name.startswith(("SLURM_", "SLURMD_"))}
    own = {name: value for name, value in found.items() if "SLURM_JOB_ID" in found and name != "SLURM_CONF"}
    for name in own:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(own)


def states(jobs: Collection[str]) -> dict[str, tuple[str, str]] | None:
    """The state and the node of jobs by number (``12``, ``12_1`` in an array); None: SLURM does not answer.

    The queue knows jobs for some minutes (``MinJobAge``) after their end, and is there on every cluster; only then the
    accounting is queried, which some clusters do not have.
    """
    queue = ["squeue", "--array", "--noheader", "--states=all", f"--jobs={','.join(jobs)}", "--format=%i|%T|%N"]
    answer = subprocess.run(queue, capture_output=True, text=True)
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return None
    lines = answer.stdout.splitlines()
    if missing := {*jobs} - {line.partition("|")[0] for line in lines}:
        accounting = ["sacct", "-nXP", f"--jobs={','.join(sorted(missing))}", "--format=JobID,State,NodeList"]
        lines += subprocess.run(accounting, capture_output=True, text=True).stdout.splitlines()
    rows = [line.split("|") for line in lines]
    found = {job: (state.partition(" ")[0], node) for job, state, node in rows}  # CANCELLED by 1000
    return {job: found.get(job, ("UNKNOWN", "")) for job in jobs}


def results(folder: Path, job: str) -> list[tuple[str, str | None]]:
    """What submitit has written of each task that has ended: ``success``, or ``error`` and the traceback."""
    return [pickle.loads(file.read_bytes()) for file in sorted(folder.glob(f"{job}_*_result.pkl"))]


def reason(folder: Path, job: str, state: str) -> str | None:
    """Why a job has ended: its state, or what its tasks have raised."""
    found = results(folder, job)
    if not found or state not in ("COMPLETED", "FAILED", "UNKNOWN"):
        return REASONS[state]
    raised = [
        (trace or "").strip().splitlines()[-1].partition(": ")[2] for outcome, trace in found if outcome == "error"
    ]
    late = any("timed-out" in text for text in raised)  # as submitit says
    return REASONS["TIMEOUT"] if late else raised[0] if raised else None
