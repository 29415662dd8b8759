"""What an engine does: start workers, say which have ended and why, stop them. Everything else is common to all."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Ended:
    """A worker that has ended."""

    job: str
    """Its label, as in ``worker_command(job=...)``: ``worker 2``, ``SLURM job 12_1``."""
    reason: str | None
    """None where it ended by itself with exit code 0; else why, as in ``killed by signal 9 (out of memory?)``,
    ``cancelled``, ``timed out``, ``its node failed``."""


class Engine(Protocol):
    """Starts the workers of one sweep or run."""

    def start(self, folder: Path, count: int) -> None:
        """Start so many more workers on the work file in a folder.

        Raises:
            InputError: workers cannot be started here, or not with these options.
        """
        ...

    def running(self) -> int:
        """The number of workers that were started, or wait in a queue, and have not ended."""
        ...

    def ended(self) -> list[Ended]:
        """The workers that have ended since the last call."""
        ...

    def stop(self) -> None:
        """Ask all workers to write what they have finished and to end; return once they have, or after a limit."""
        ...


def worker_command(folder: Path, job: str = "", threads: int | None = None) -> list[str]:
    """The command line of a worker.

    Args:
        folder: the folder of the sweep or the run, which has a work file.
        job: the label of the worker in messages and records; empty: that of its SLURM job, or its process.
        threads: the cores that it may use; None: those of its SLURM task, or as torch chooses.
    """
    words = [sys.executable, "-m", "diffexp.sweeps", str(folder.absolute())]
    words += ["--job", job] if job else []
    return [*words, "--threads", str(threads)] if threads else words


def signal_reason(number: int) -> str:
    """The reason of a worker that signal ``number`` has ended."""
    return f"killed by signal {number}" + (" (out of memory?)" if number == 9 else "")
