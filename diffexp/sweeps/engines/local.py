"""Workers as processes of this machine: one a GPU, or any number on its cores, which they share."""

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from diffexp.errors import INTERRUPTED
from diffexp.sweeps.engines.base import Ended, exit_reason, worker_command
from diffexp.sweeps.engines.options import Rule
from diffexp.sweeps.work import read_work
from diffexp.sweeps.workers import FOLDER

USUAL = 2
"""Workers of a machine without GPUs."""
POLL_SECONDS = 0.1
STOP_SECONDS = 120.0
"""How long workers may take to write what they have finished."""


class LocalEngine:
    """See ``diffexp.sweeps.engines.base.Engine``; the output of worker 2 is ``.workers/worker-2.log``."""

    OPTIONS: ClassVar[Mapping[str, Any]] = {}
    RULES: ClassVar[Mapping[str, Rule]] = {}

    def __init__(self, workers: int | None = None) -> None:
        self._gpus = gpus()
        self.workers = workers or len(self._gpus) or USUAL
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: dict[str, Path] = {}
        self._gpu_of: dict[str, str] = {}

    def adopt(self, folder: Path) -> set[str]:
        """Adopt none: a process that another has started does not tell this one how it ends."""
        return set()

    def start(self, folder: Path, count: int) -> None:
        place = folder / FOLDER
        place.mkdir(exist_ok=True)
        shared = self._gpus if _use_any_gpu(folder) else []
        for _ in range(count):
            number = 1 + len([*place.glob("worker-*.log")])
            job, log = f"worker {number}", place / f"worker-{number}.log"
            environment = dict(os.environ)
            if shared:
                taken = Counter(self._gpu_of[job] for job in self._running)
                self._gpu_of[job] = min(shared, key=lambda gpu: taken[gpu])
                environment["CUDA_VISIBLE_DEVICES"] = self._gpu_of[job]
            with log.open("xb") as output:
                self._running[job] = subprocess.Popen(
                    worker_command(folder, job, threads=max(1, cores() // self.workers)),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is the driver's, which passes it on; and workers outlive it
                )
            self._logs[job] = log

    def running(self) -> int:
        return sum(process.poll() is None for process in self._running.values())

    def ended(self) -> list[Ended]:
        found = [(job, code) for job, process in self._running.items() if (code := process.poll()) is not None]
        for job, _ in found:
            del self._running[job]
        return [Ended(job, _reason(code, self._logs[job])) for job, code in found]

    def stop(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for process in self._running.values():
                process.send_signal(signal.SIGINT)  # the user waits: not even for the batch in work
            while self.running() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        finally:  # also at a second Ctrl-C
            for process in self._running.values():
                process.kill()
                process.wait()


def gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if not (shutil.which("nvidia-smi") or Path("/dev/kfd").exists()):
        return []
    import torch  # takes seconds

    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return given or [str(number) for number in range(torch.cuda.device_count())]


def cores() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _use_any_gpu(folder: Path) -> bool:
    """Whether cells leave open which GPU they use."""
    return all(cell.config["device"] in ("auto", "cuda") for cell in read_work(folder).cells)


def _reason(code: int, log: Path) -> str | None:
    """Why a process ended with this exit code; if by an error, with the last line of its output."""
    reason = exit_reason(code)
    if code < 0 or code in (0, INTERRUPTED):
        return reason
    lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{reason}" + (last and f": {last.removeprefix('error: ')}")
