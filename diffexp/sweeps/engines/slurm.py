"""Workers as the jobs of a SLURM cluster: submitit submits them as one array and requeues those that are preempted."""

import subprocess
import time
from pathlib import Path
from typing import Any

from diffexp.errors import InputError
from diffexp.sweeps.engines.base import Ended, on_host
from diffexp.sweeps.engines.slurm_job import SlurmWorker
from diffexp.sweeps.engines.slurm_options import executor_options
from diffexp.sweeps.engines.slurm_queue import REASONS, reason, states

FOLDER = ".slurm"
"""The folder in that of the sweep which has the scripts and logs of its jobs."""
STOP_SECONDS = 120.0
POLL_SECONDS = 2.0, 10.0
"""The least and the most time between two questions to SLURM's controller."""


class SlurmEngine:
    """Submits jobs from a machine that has ``sbatch``; the folder of the sweep is one that all nodes see.

    Args:
        options: see ``slurm_options``.

    Raises:
        InputError: submitit or SLURM is not installed, or an option is not known or cannot have its value.
    """

    def __init__(self, **options: Any) -> None:
        self._options = executor_options(options)
        self._folder = Path()
        self._executor()
        self._jobs: dict[str, tuple[str, str]] = {}
        self._ended: list[Ended] = []
        self._began = self._asked = time.monotonic()

    def start(self, folder: Path, count: int) -> None:
        """Submit so many jobs as one array.

        Raises:
            InputError: SLURM refuses them.
        """
        self._folder = folder.absolute() / FOLDER
        worker = SlurmWorker(folder.absolute(), 0.8 * self._options.get("slurm_signal_delay_s", 90))
        try:
            jobs = self._executor().submit_array([worker] * count)
        except RuntimeError as error:
            raise InputError(f"SLURM refused the jobs: {' '.join(str(error).split())}") from error
        self._jobs |= {job.job_id: ("PENDING", "") for job in jobs}

    def adopt(self, folder: Path) -> None:
        """Count the jobs of an earlier driver that have not ended."""
        self._folder = folder.absolute() / FOLDER
        found = [file.name.removesuffix("_submitted.pkl") for file in self._folder.glob("*_submitted.pkl")]
        known = (states(found) if found else None) or {}
        self._jobs |= {job: stated for job, stated in known.items() if stated[0] not in REASONS}

    def running(self) -> int:
        """The number of jobs that have not ended."""
        self._poll()
        return len(self._jobs)

    def ended(self) -> list[Ended]:
        """The jobs that have ended since the last call."""
        self._poll()
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        """Cancel the jobs that have not begun, interrupt the others and wait until they have ended."""
        deadline = time.monotonic() + STOP_SECONDS
        if self._jobs:
            subprocess.run(["scancel", "--state=PENDING", *self._jobs], capture_output=True)
            subprocess.run(["scancel", "--signal=INT", *self._jobs], capture_output=True)
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.5)

    def _executor(self) -> Any:
        try:
            from submitit import AutoExecutor
        except ImportError as error:
            raise InputError("hydra/launcher=slurm needs submitit: pip install 'diffexp[submitit]'") from error
        first = {name: self._options[name] for name in self._options.keys() & {"slurm_max_num_timeout", "slurm_python"}}
        try:
            executor = AutoExecutor(self._folder, cluster="slurm", **first)
            executor.update_parameters(**{name: value for name, value in self._options.items() if name not in first})
        except (RuntimeError, NameError, ValueError, TypeError) as error:
            raise InputError(f"hydra/launcher=slurm: {' '.join(str(error).split())}") from error
        return executor

    def _poll(self) -> None:
        """Ask for the state of every job: one that is twice found to have ended in the same way is not requeued."""
        now = time.monotonic()
        pause = min(max(POLL_SECONDS[0], (now - self._began) / 30), POLL_SECONDS[1])
        known = states(self._jobs) if self._jobs and now > self._asked + pause else None
        self._asked = now if known else self._asked
        for job, (state, node) in (known or {}).items():
            before, self._jobs[job] = self._jobs[job], (state, node)
            if state in REASONS and state == before[0]:
                del self._jobs[job]
                self._ended.append(
                    Ended(f"SLURM job {job}", on_host(reason(self._folder, job, state), node or before[1]))
                )
