"""What an engine does: start workers, say which have ended and why, stop them. Everything else is common to all."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from diffexp.errors import INTERRUPTED
from diffexp.sweeps.engines.options import Rule


@dataclass(frozen=True)
class Ended:
    """A worker that has ended."""

    job: str
    """Its label, as in ``worker_command(job=...)``: ``worker 2``, ``SLURM job 12_1``."""
    reason: str | None
    """None where it ended by itself with exit code 0; else why, as in ``killed by signal 9 (out of memory?)``,
    ``cancelled``, ``timed out``, ``its node failed``."""


class Engine(Protocol):
    """Starts the workers of one sweep or run.

    A class is called with the number of workers that the command names, or None, and with values for its ``OPTIONS``.
    """

    OPTIONS: ClassVar[Mapping[str, Any]]
    """The keys of ``hydra.launcher`` and their defaults."""
    RULES: ClassVar[Mapping[str, Rule]]
    """What their values may be."""
    workers: int
    """How many there are to be."""

    def start(self, folder: Path, count: int) -> None:
        """Start so many more workers on the work file in a folder.

        Raises:
            InputError: workers cannot be started here, or not with these options.
        """
        ...

    def adopt(self, folder: Path) -> set[str]:
        """Count the workers that an earlier driver has started on a folder and that still run or wait in a queue.

        Called once, before the first ``start``.

        Returns:
            Their labels.
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


def worker_command(folder: Path, job: str = "", threads: int | None = None, grace: float | None = None) -> list[str]:
    """The command line of a worker.

    Args:
        folder: the folder of the sweep or the run, which has a work file.
        job: the label of the worker in messages and records; empty: that of its SLURM job, or its process.
        threads: the cores that it may use; None: those of its SLURM task, or as torch chooses.
        grace: seconds that its batch may take after SIGUSR2; None: as long as it likes best.
    """
    words = [sys.executable, "-m", "diffexp.sweeps", str(folder.absolute())]
    words += ["--job", job] if job else []
    words += ["--threads", str(threads)] if threads else []
    return [*words, "--grace", f"{grace:g}"] if grace else words


def exit_reason(code: int) -> str | None:
    """Why a worker has ended with this exit code, which is negative for a signal; None: its work was done."""
    if code < 0:
        return f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    return {0: None, INTERRUPTED: "interrupted"}.get(code, f"ended with exit code {code}")


def on_host(reason: str | None, host: str) -> str | None:
    """The reason with the host, where that is known."""
    return f"{reason} on {host}" if reason and host else reason
