"""Sweeps on a cluster as a user starts them, with a record of every model that is loaded and every sample drawn."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffexp
from tests.runs import images
from tests.slurm_cluster import wait_for

LIMIT = 240
"""Seconds after which a command hangs."""
PLUGIN = '''
"""Models and loops that note what they do, and take their time."""

import os
import time
from pathlib import Path

from diffexp import loop, model
from diffexp.components.loops.denoise import denoise
from diffexp.components.models.mixture import mixture


def note(*words):
    with (Path(__file__).parents[1] / "notes.txt").open("a") as file:
        print(os.getpid(), os.environ.get("SLURM_ARRAY_TASK_ID", "-"), *words, file=file, flush=True)


@model
def noted(runtime):
    note("load")
    return mixture(runtime, shape=(1, 8, 8))


@loop
def slow(batch, *, tag: int = 0, seconds: float = 0.4):
    drawn = denoise(batch) * (1 - tag / 100)
    note("draw", *(f"{tag}:{index}" for index in batch.indices))
    time.sleep(seconds)
    return drawn
'''
SWEEP = "-m model=noted loop=slow steps=4 num_samples=4 batch_size=1 metric=cost tracker=none hydra.launcher.batch=1"


@dataclass(frozen=True)
class Note:
    pid: int
    task: str
    """The number of the job in its array."""
    kind: str
    samples: tuple[str, ...]


class Workplace:
    """A folder with the plugin, from which commands are started.

    Args:
        environment: what commands need to reach the cluster.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        places = [str(Path(diffexp.__path__[0]).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        self._environment = {**environment, "PYTHONPATH": os.pathsep.join(filter(None, places))}
        (folder / "plugins").mkdir()
        (folder / "plugins" / "noted.py").write_text(PLUGIN)
        self._notes = folder / "notes.txt"

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "diffexp", *words],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, running: subprocess.Popen[str]) -> tuple[int, str, str]:
        try:
            out, errors = running.communicate(timeout=LIMIT)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
        return running.returncode, out, errors

    def notes(self, kind: str) -> list[Note]:
        """What has been noted, in order."""
        if not self._notes.is_file():
            return []
        lines = [line.split() for line in self._notes.read_text().splitlines()]
        return [Note(int(pid), task, what, tuple(rest)) for pid, task, what, *rest in lines if what == kind]

    def drawn(self) -> Counter[str]:
        """How often every sample has been drawn."""
        return Counter(sample for note in self.notes("draw") for sample in note.samples)

    def forget(self) -> None:
        self._notes.unlink()

    def wait_for_draws(self, running: subprocess.Popen[str] | None, workers: int, after: int = 0) -> list[Note]:
        """The notes since the first ``after``, once so many processes have drawn samples."""

        def drawn() -> bool:
            assert running is None or running.poll() is None, running.communicate()
            return len({note.pid for note in self.notes("draw")[after:]}) >= workers

        wait_for(drawn, f"no {workers} workers draw samples: {self._logs()}", LIMIT)
        return self.notes("draw")[after:]

    def _logs(self) -> str:
        files = [*self.folder.glob("*/.slurm/*.out"), *self.folder.glob("*/.workers/*")]
        return "".join(f"\n{file}: {file.read_text()[-2000:]}" for file in files if file.is_file())


def rows(sweep: Path) -> list[dict[str, Any]]:
    with (sweep / "results.csv").open() as file:
        return list(csv.DictReader(file))


def pictures(sweep: Path) -> dict[str, Any]:
    """All samples of a sweep, by cell and index."""
    cells = [path for path in sweep.iterdir() if (path / "samples").is_dir()]
    return {f"{cell.name}/{index}": image for cell in cells for index, image in images(cell).items()}


def remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
