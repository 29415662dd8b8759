"""What the engines of clusters share: jobs by label, which a scheduler starts and ends when it likes."""

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from diffexp.errors import InputError
from diffexp.sweeps.engines.base import Ended, on_host

STOP_SECONDS = 120.0
"""How long workers may take to write what they have finished."""


class ClusterEngine(ABC):
    """An engine (see ``base``) whose jobs are asked for their state.

    Args:
        workers: how many jobs there are to be.

    Raises:
        InputError: there are to be none.
    """

    def __init__(self, workers: int) -> None:
        if not isinstance(workers, int) or workers < 1:
            raise InputError(f"hydra.launcher.jobs={workers} must be at least 1")
        self.workers = workers
        self._jobs: dict[str, Any] = {}
        """What is known of the jobs that have not ended, by label."""
        self._ended: list[Ended] = []

    @abstractmethod
    def start(self, folder: Path, count: int) -> None: ...

    @abstractmethod
    def adopt(self, folder: Path) -> set[str]: ...

    @abstractmethod
    def _interrupt(self) -> None:
        """Cancel the jobs that have not begun, and ask the workers of the others to end."""

    @abstractmethod
    def _poll(self) -> None:
        """Find which jobs have ended and call ``_end`` for each."""

    def _end(self, label: str, reason: str | None, host: str) -> None:
        del self._jobs[label]
        self._ended.append(Ended(label, on_host(reason, host)))

    def running(self) -> int:
        self._poll()
        return len(self._jobs)

    def ended(self) -> list[Ended]:
        self._poll()
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        if self._jobs:
            self._interrupt()
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.2)
