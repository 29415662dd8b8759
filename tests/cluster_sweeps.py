"""Sweeps on a cluster as a user starts them, with a record of every model that is loaded and every sample drawn."""

import csv
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffexp
from diffexp.files import write_text
from tests.runs import images
from tests.slurm_cluster import wait_for

LIMIT = 240
"""Seconds after which a command hangs."""
LONG = 30
"""A pace at which nothing ends while a test looks."""
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
def slow(batch, *, tag: int = 0):
    drawn = denoise(batch) * (1 - tag / 100)
    note("draw", *(f"{tag}:{index}" for index in batch.indices))
    began = time.monotonic()
    while time.monotonic() < began + float((Path(__file__).parents[1] / "pace.txt").read_text()):
        time.sleep(0.1)
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


class Command:
    """A command of diffexp in a process group of its own, whose output can be read while it runs."""

    def __init__(self, folder: Path, words: Sequence[str], environment: Mapping[str, str]) -> None:
        number = len([*folder.glob("out-*.txt")])
        self._out, self._errors = (folder / f"{name}-{number}.txt" for name in ("out", "errors"))
        with self._out.open("x") as out, self._errors.open("x") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "diffexp", *words],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                start_new_session=True,
            )

    def output(self) -> str:
        """What it has printed so far; the test fails if it has ended."""
        assert self._process.poll() is None, self.finish()
        return self._out.read_text()

    def send(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)
        if number == signal.SIGKILL:
            self._process.wait()

    def finish(self) -> tuple[int, str, str]:
        """Wait for its end: the exit code, the output and the errors."""
        try:
            code = self._process.wait(LIMIT)
        finally:
            if self._process.poll() is None:
                self.send(signal.SIGKILL)
        return code, self._out.read_text(), self._errors.read_text()


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
        self.pace(0)

    def pace(self, seconds: float) -> None:
        """How long every batch takes from now on, the batches in work included."""
        write_text(self.folder / "pace.txt", str(seconds))

    def start(self, *words: str) -> "Command":
        return Command(self.folder, words, self._environment)

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

    def wait_for_draws(self, running: Command | None, workers: int, after: int = 0) -> list[Note]:
        """The notes since the first ``after``, once so many processes have drawn samples."""

        def drawn() -> bool:
            if running:
                running.output()
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
