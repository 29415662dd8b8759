"""The workers of a sweep as others see them: a folder each, which is locked as long as the worker lives.

``.workers/<host>-<pid>-<6 hex digits>/`` in the folder of the sweep has ``worker.json``, how far the worker is, for the
one who shows the progress of the sweep; and ``end.json``, why it ended, if its engine knows.
"""

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from diffexp.experiment.lock import Watch, lock
from diffexp.files import read_json, write_json
from diffexp.sweeps.logs import Warnings
from diffexp.sweeps.progress import Progress

FOLDER = ".workers"
STATE, END = "worker.json", "end.json"
WRITE_SECONDS = 1.0
"""How often a worker writes how far it is, at most."""


@dataclass(frozen=True)
class Worker:
    """A worker and how far it is."""

    name: str
    """Of its folder."""
    job: str
    """Its label, see ``engines.base.worker_command``."""
    host: str
    pid: int
    attempt: int = 0
    """The attempt at the sweep that the rest belongs to."""
    running: Mapping[int, float] = field(default_factory=dict)
    """The finished fraction of the cells that it runs, by number."""
    ended: Mapping[int, str] = field(default_factory=dict)
    """How cells that it knows of have ended."""
    samples: int = 0
    """How many it has written."""
    warnings: Mapping[str, str] = field(default_factory=dict)
    """What it warned of, with the first cell that it concerned."""

    @property
    def title(self) -> str:
        """The worker in messages: ``worker 2 (process 4711 on n2)``."""
        process = f"process {self.pid} on {self.host}"
        return f"{self.job} ({process})" if self.job else process


class Journal(Progress):
    """The progress of one worker, on disk for the others; on a terminal too, if the worker has one.

    Args:
        work: see ``Progress``.
        folder: of the worker.
    """

    def __init__(self, work: Mapping[int, float], folder: Path, worker: Worker) -> None:
        super().__init__(work)
        self._folder = folder
        self.worker = worker
        self._written = -WRITE_SECONDS
        self._warnings = Warnings()
        logging.getLogger("diffexp").addHandler(self._warnings)

    def begin(self, work: Mapping[int, float], attempt: int) -> None:
        """Begin a new attempt at the sweep, or one with more cells."""
        with self._lock:
            self._work = work
            if attempt != self.worker.attempt:
                self._ended.clear()
        self.worker = replace(self.worker, attempt=attempt)
        self.write()

    def show(self) -> None:
        super().show()
        if time.monotonic() >= self._written + WRITE_SECONDS:
            self.write()

    def close(self) -> None:
        super().close()
        logging.getLogger("diffexp").removeHandler(self._warnings)
        self.write()

    def write(self) -> None:
        """Write how far the worker is; on a full disk, nothing."""
        self._written = time.monotonic()
        running, ended, samples = self.state()
        with suppress(OSError):
            now = replace(
                self.worker, running=running, ended=ended, samples=samples, warnings=dict(self._warnings.found)
            )
            write_json(self._folder / STATE, asdict(now))


@contextmanager
def joined(sweep: Path, job: str, work: Mapping[int, float]) -> Iterator[Journal]:
    """Be a worker of a sweep until the block ends.

    Raises:
        InputError: the folder of the sweep cannot be written.
    """
    host, pid = socket.gethostname(), os.getpid()
    worker = Worker(f"{host}-{pid}-{secrets.token_hex(3)}", job, host, pid)
    folder = sweep / FOLDER / worker.name
    with lock(folder):
        journal = Journal(work, folder, worker)
        journal.write()
        try:
            yield journal
        finally:
            journal.close()


def read_workers(sweep: Path) -> list[Worker]:
    """All workers that a sweep has had, dead ones too, in the order of their last reports."""
    found = [(_time_of(file), worker) for file in sweep.glob(f"{FOLDER}/*/{STATE}") if (worker := _read(file))]
    return [worker for _, worker in sorted(found, key=lambda one: one[0])]


def live_workers(sweep: Path, watch: Watch) -> set[str]:
    """The names of the workers of a sweep that live."""
    return {file.parent.name for file in sweep.glob(f"{FOLDER}/*/{STATE}") if watch.is_held(file.parent)}


def record_end(sweep: Path, name: str, reason: str) -> None:
    """Record why a worker has ended."""
    with suppress(OSError):
        write_json(sweep / FOLDER / name / END, {"reason": reason})


def read_end(sweep: Path, name: str) -> str | None:
    """Why a worker has ended; None where nobody knows."""
    return read_json(sweep / FOLDER / name / END).get("reason")


def _time_of(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _read(file: Path) -> Worker | None:
    found: dict[str, Any] = read_json(file)
    if found.keys() != Worker.__dataclass_fields__.keys():
        return None
    for key in ("running", "ended"):
        found[key] = {int(number): value for number, value in (found[key] or {}).items()}
    return Worker(**found)
