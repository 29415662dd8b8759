"""Workers as the jobs of a SLURM cluster: submitit submits them as one array and requeues those that are preempted."""

import io
import subprocess
import time
from contextlib import redirect_stderr
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diffexp.errors import InputError
from diffexp.sweeps.engines.cluster import ClusterEngine
from diffexp.sweeps.engines.options import JOBS
from diffexp.sweeps.engines.slurm_job import SlurmWorker
from diffexp.sweeps.engines.slurm_options import OPTIONS, RULES, executor_options
from diffexp.sweeps.engines.slurm_queue import REASONS, as_outside_of_jobs, reason, results, states

FOLDER = ".slurm"
"""The folder in that of the sweep which has the scripts and logs of its jobs."""
POLL_SECONDS = 1.0, 10.0
"""The least and the most time between two questions to SLURM's controller."""
SIGNAL_SECONDS = 90
"""How long before its end SLURM signals a job, by submitit's default."""
LABEL = "SLURM job "


class SlurmEngine(ClusterEngine):
    """Submits jobs from a machine that has ``sbatch``; the folder of the sweep is one that all nodes see.

    Args:
        workers: the number of jobs.
        jobs: the same, where ``workers`` is None.
        options: see ``slurm_options``.

    Raises:
        InputError: submitit or SLURM is not installed, or an option is not known or cannot have its value.
    """

    OPTIONS = MappingProxyType({"jobs": 2, **OPTIONS})
    RULES = MappingProxyType({"jobs": JOBS, **RULES})

    def __init__(self, workers: int | None = None, jobs: int = 2, **options: Any) -> None:
        super().__init__(workers or jobs)
        self._options = executor_options(options)
        self._folder = Path()
        self._executor()
        self._began = self._asked = time.monotonic()

    def start(self, folder: Path, count: int) -> None:
        """Submit so many jobs as one array.

        Raises:
            InputError: SLURM refuses them.
        """
        self._folder = folder.absolute() / FOLDER
        patience = 0.8 * self._options.get("slurm_signal_delay_s", SIGNAL_SECONDS)
        try:
            with as_outside_of_jobs(), redirect_stderr(io.StringIO()):  # what sbatch prints is in the error
                jobs = self._executor().submit_array([SlurmWorker(folder.absolute(), patience)] * count)
        except RuntimeError as error:
            raise InputError(f"SLURM refused the jobs: {' '.join(str(error).split())}") from error
        self._jobs |= {LABEL + job.job_id: ("PENDING", "") for job in jobs}

    def adopt(self, folder: Path) -> set[str]:
        """Count the jobs of an earlier driver that have not ended; returns their labels."""
        self._folder = folder.absolute() / FOLDER
        found = [file.name.removesuffix("_submitted.pkl") for file in self._folder.glob("*_submitted.pkl")]
        known = (states(found) if found else None) or {}
        self._jobs |= {LABEL + job: stated for job, stated in known.items() if stated[0] not in REASONS}
        return {*self._jobs}

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

    def _interrupt(self) -> None:
        numbers = [label.removeprefix(LABEL) for label in self._jobs]
        for words in ("--state=PENDING", "--signal=INT"):
            subprocess.run(["scancel", words, *numbers], capture_output=True)

    def _poll(self) -> None:
        """Ask for the state of every job; one that has a result, or has ended when asked twice, is not requeued."""
        now = time.monotonic()
        pause = min(max(POLL_SECONDS[0], (now - self._began) / 30), POLL_SECONDS[1])
        numbers = [label.removeprefix(LABEL) for label in self._jobs]
        known = states(numbers) if numbers and now > self._asked + pause else None
        self._asked = now if known else self._asked
        for job, (state, node) in (known or {}).items():
            before, self._jobs[LABEL + job] = self._jobs[LABEL + job], (state, node)
            if state in REASONS and (state == before[0] or results(self._folder, job)):
                self._end(LABEL + job, reason(self._folder, job, state), node or before[1])
