"""Runs the cells of a sweep in this process: those that share a model together, each in a thread of its own."""

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from diffexp.catalog.discover import Catalog
from diffexp.errors import InputError
from diffexp.experiment.context import RunContext
from diffexp.experiment.device import read_device
from diffexp.experiment.resume import read_earlier
from diffexp.experiment.summary import metrics_line
from diffexp.files import read_json
from diffexp.sweeps.batch_size import MOST, BatchLimit
from diffexp.sweeps.batching import Batcher, Seat
from diffexp.sweeps.cell import Job, swept_words
from diffexp.sweeps.context import CellContext, Shared, SoloContext
from diffexp.sweeps.duplicates import Twins, samples_key
from diffexp.sweeps.failures import Failure, forget_failure, record_failure
from diffexp.sweeps.logs import cell_logging, sweep_logging
from diffexp.sweeps.progress import Progress

log = logging.getLogger(__name__)

THREADS = 128
"""How many cells are alive at once, at most."""
GLANCE_SECONDS = 0.2
"""How often the progress is looked at while nobody asks."""

Run = Callable[[Job, RunContext], None]
"""Runs one cell, whose errors it raises."""


@dataclass(eq=False)
class Cell:
    """A job that has begun."""

    job: Job
    status: str = "running"
    failure: Failure | None = None
    thread: threading.Thread | None = None

    def live(self, run: Run, context: RunContext) -> None:
        """Run it to its end; whatever happens is kept."""
        with ExitStack() as stack:
            try:
                self.job.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(cell_logging(self.job.folder))
                forget_failure(self.job.folder)
                run(self.job, context)
                self.status = "done"
            except KeyboardInterrupt:
                self.status = "interrupted"
            except BaseException as error:  # the other cells go on
                self.status, self.failure = "failed", record_failure(self.job.folder, error)
            finally:
                context.end(self.status)


class Runner:
    """The cells of one sweep; what they share stays for the next call.

    Args:
        run: how to run one cell.
        catalog: what there is to choose from.
        batch: samples in one call of a model; None: what its device likes best.
        resumed: whether cells that are done already are left as they are.
    """

    def __init__(self, run: Run, catalog: Catalog, batch: int | None, resumed: bool) -> None:
        self._run = run
        self._catalog = catalog
        self._batch = batch
        self._resumed = resumed
        self._twins = Twins()
        self._key = ""
        self._shared: Shared | None = None
        self._swept: dict[int, str] = {}

    def run(self, jobs: Sequence[Job]) -> None:
        """Run all cells, those that cannot share a model at the end.

        Raises:
            KeyboardInterrupt: after every cell has written what it had finished.
        """
        self._swept = swept_words(jobs)
        cells, jobs = len(jobs), [job for job in jobs if not self._is_done(job)]
        if len(jobs) < cells:
            log.info("%d of them are done already", cells - len(jobs))
        progress = Progress({job.number: _work(job.config) for job in jobs})
        groups: dict[str, list[Job]] = {}
        for job in jobs:
            groups.setdefault(_model_key(job.config), []).append(job)
        try:
            with sweep_logging():
                for key, group in groups.items():
                    shared = self._shared_by(key, group)
                    self._together([job for job in group if not self._is_alone(job)], shared, progress)
                    for job in group:
                        if self._is_alone(job):
                            self._solo(job, shared, progress)
        finally:
            progress.close()

    def _is_done(self, job: Job) -> bool:
        earlier = read_earlier(job.folder)
        if not self._resumed or earlier is None or earlier.record.get("status") != "done":
            return False
        self._twins.add(samples_key(earlier.record), job.folder)
        return True

    def _is_alone(self, job: Job) -> bool:
        """Whether it does more to its model than to ask it: a black-box loop, or networks that come and go."""
        entry = self._catalog.entries.get(("loop", job.config["loop"].get("name")))
        return bool(entry and entry.traits.get("alone")) or job.config["model"].get("offload", "none") != "none"

    def _shared_by(self, key: str, group: Sequence[Job]) -> Shared:
        if key != self._key or self._shared is None:
            self._key, self._shared = key, None  # one model at a time: the memory of the last one goes first
            limit = BatchLimit(self._batch, _most_samples([job.config for job in group]))
            self._shared = Shared(Batcher(limit), self._twins)
        return self._shared

    def _together(self, jobs: Sequence[Job], shared: Shared, progress: Progress) -> None:
        """Cells of one model: as many at once as fill its batches twice, so that while some step, others are asked."""
        batcher, waiting, alive = shared.batcher, deque(jobs), list[Cell]()
        try:
            while waiting or alive:
                while waiting and len(alive) < THREADS and batcher.rows < 2 * batcher.limit.value:
                    alive.append(self._begin(waiting.popleft(), shared, progress))
                batcher.serve(GLANCE_SECONDS)
                progress.show()
                over = [cell for cell in alive if cell.thread and not cell.thread.is_alive()]
                for cell in over:
                    alive.remove(cell)
                    self._tell(cell, progress)
        except BaseException:
            batcher.stop()
            for cell in alive:
                if cell.thread:
                    cell.thread.join()
            raise

    def _begin(self, job: Job, shared: Shared, progress: Progress) -> Cell:
        seat = Seat(job.number, min(int(job.config["batch_size"]), int(job.config["num_samples"])))
        shared.batcher.sit(seat)
        cell, context = Cell(job), CellContext(shared, seat, job.folder, progress)
        # A daemon, so that a second Ctrl-C need not wait for it.
        cell.thread = threading.Thread(target=cell.live, args=(self._run, context), name=job.folder.name, daemon=True)
        cell.thread.start()
        return cell

    def _solo(self, job: Job, shared: Shared, progress: Progress) -> None:
        cell = Cell(job)
        cell.live(self._run, SoloContext(shared, job.number, progress))
        self._tell(cell, progress)

    def _tell(self, cell: Cell, progress: Progress) -> None:
        """Say how a cell ended.

        Raises:
            KeyboardInterrupt: that is how.
        """
        if cell.status == "interrupted":
            raise KeyboardInterrupt
        told = cell.failure.message if cell.failure else metrics_line(read_json(cell.job.folder / "metrics.json"))
        parts = (cell.job.folder.name, self._swept.get(cell.job.number))
        name = " ".join(part for part in parts if part)
        log.info("[%s] %s: %s%s", progress.count(), name, cell.status, told and f"  {told}")


def _model_key(config: Mapping[str, Any]) -> str:
    """Cells of equal keys load the same model."""
    return json.dumps([config[key] for key in ("model", "device", "dtype", "compile")], default=str)


def _work(config: Mapping[str, Any]) -> float:
    steps, most = config["steps"], config.get("max_nfe")
    return float((steps if most is None else min(steps, most)) * config["num_samples"])


def _most_samples(configs: Sequence[Mapping[str, Any]]) -> int:
    """The most that a call may be given: where memory that runs out kills, no more than a cell alone would."""
    try:
        device = read_device(configs[0]["device"])
    except InputError:  # the cells will say so themselves
        return 1
    return MOST if device.type == "cuda" else max(int(config["batch_size"]) for config in configs)
