"""What a Ray actor does: it keeps a worker in a process of its own, whose death and whose signals are not Ray's."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from diffexp.sweeps.engines.base import worker_command

LINGER_SECONDS = 60.0
"""How long an actor whose worker has ended waits for the driver to ask why; then it frees its place in the cluster."""


class RayWorker:
    """A worker that ends with its actor; Ray kills the process group of an actor that dies.

    Args:
        folder: the folder of the sweep or the run.
        job: the label of the worker.
        threads: the cores that it may use; None: as torch chooses.
        cwd: the working folder of the driver.
        variables: the environment of the driver, for variables that are not set on this node.
    """

    def __init__(self, folder: Path, job: str, threads: int | None, cwd: Path, variables: Mapping[str, str]) -> None:
        environment = {**variables, **os.environ}
        self._process = subprocess.Popen(worker_command(folder, job, threads), cwd=cwd, env=environment)
        threading.Thread(target=self._leave, daemon=True).start()

    def state(self) -> tuple[str, int | None]:
        """The host, and the exit code of a worker that has ended."""
        return socket.gethostname(), self._process.poll()

    def interrupt(self) -> None:
        """Ask the worker to write what it has finished and to end."""
        self._process.send_signal(signal.SIGHUP)  # at once; Ray blocks SIGINT

    def _leave(self) -> None:
        self._process.wait()
        time.sleep(LINGER_SECONDS)
        os._exit(0)
