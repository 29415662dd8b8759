"""Runs the cells of a sweep in this process: those that share a model together, each in a thread of its own."""

import gc
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from diffexp.catalog.discover import Catalog
from diffexp.errors import InputError
from diffexp.experiment.context import RunContext
from diffexp.experiment.device import read_device
from diffexp.experiment.finished import finished_run
from diffexp.experiment.lock import lock
from diffexp.experiment.summary import metrics_line, read_metrics
from diffexp.sweeps.batch_size import MAX_ROWS, BatchLimit
from diffexp.sweeps.batching import STRAGGLER_SECONDS
from diffexp.sweeps.cell import Cell, distinguishing_words
from diffexp.sweeps.context import CellContext, SharedResources, SoloContext, SweepContext
from diffexp.sweeps.duplicates import DuplicateRuns
from diffexp.sweeps.failures import Failure, clear_failure, record_failure, record_interrupt
from diffexp.sweeps.logs import cell_logging, sweep_logging
from diffexp.sweeps.progress import Progress

log = logging.getLogger(__name__)

MAX_THREADS = 128
"""Cells that run at the same time, at most."""
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.2
"""How often the progress is shown while no cell calls the model."""

RunCell = Callable[[Cell, RunContext], None]
"""Runs one cell, whose errors it raises."""


class CellThread(threading.Thread):
    """A cell that runs in a thread of its own, or in the current one by calling ``run`` instead of ``start``."""

    def __init__(self, cell: Cell, run_cell: RunCell, context: SweepContext) -> None:
        super().__init__(name=cell.folder.name, daemon=True)  # so that a second Ctrl-C need not wait for it
        self.cell = cell
        self.status = "running"
        self.failure: Failure | None = None
        self._run_cell = run_cell
        self.context = context

    def run(self) -> None:
        """Run the cell to its end; errors are recorded."""
        folder = self.cell.folder
        with ExitStack() as stack:
            try:
                stack.enter_context(lock(folder))
                stack.enter_context(cell_logging(folder))
                clear_failure(folder)
                self._run_cell(self.cell, self.context)
                clear_failure(folder)  # perhaps of another process, which found the folder in use
                self.status = "done"
            except KeyboardInterrupt:
                self.status = "interrupted"
            except BaseException as error:  # the other cells continue
                self.status, self.failure = "failed", record_failure(folder, error)
            finally:
                self.context.end(self.status)


class StallWatch:
    """Names the cells that hold up a sweep, once in every ``seconds`` in which nothing has happened."""

    def __init__(self, seconds: float, advice: str = "") -> None:
        self._seconds = seconds
        self._advice = advice
        self.restart()

    def restart(self) -> None:
        """Note that something has happened."""
        self._since = time.monotonic()

    def check(self, threads: Sequence[CellThread]) -> bool:
        """Name the running cells that do not wait for others, if it is time; returns whether it was."""
        if time.monotonic() < self._since + self._seconds:
            return False
        self.restart()
        busy = [thread.name for thread in threads if thread.is_alive() and not thread.context.waits]
        if busy:
            log.warning("no answer for %g s from %s%s", self._seconds, ", ".join(busy), self._advice)
        return True


class Runner:
    """Runs the cells of one sweep; the model and what is known of finished cells stay for the next call.

    Args:
        run_cell: runs one cell.
        catalog: the options that there are.
        batch: samples in one call of a model; None: as many as its device likes best.
        resumed: whether cells that are done already are skipped.
        resume: what continues the sweep, as in ``resume=outputs/multirun/...``; empty if nothing does.
        straggler_seconds: how long a call of the model waits for cells that do something else.
        patience_seconds: how long nothing happens before the cells that hold up the others are named.
    """

    def __init__(
        self,
        run_cell: RunCell,
        catalog: Catalog,
        batch: int | None,
        resumed: bool,
        straggler_seconds: float = STRAGGLER_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        resume: str = "",
    ) -> None:
        self._run_cell = run_cell
        self._catalog = catalog
        self._batch = batch
        self._resumed = resumed
        self._straggler_seconds = straggler_seconds
        self._patience_seconds = patience_seconds
        self._resume = resume
        self._duplicates = DuplicateRuns(catalog)
        self._key = ""
        self._shared: SharedResources | None = None
        self._words: dict[int, str] = {}
        self._failures: list[Failure] = []

    def run(self, cells: Sequence[Cell]) -> list[Failure]:
        """Run all cells, those that cannot share a model at the end.

        Returns:
            The failures among them.

        Raises:
            KeyboardInterrupt: after every cell has written what it had finished.
        """
        self._words, self._failures = distinguishing_words(cells), []
        todo = [cell for cell in cells if not self._is_done(cell)]
        if len(todo) < len(cells):
            log.info("%d of them are done already", len(cells) - len(todo))
        groups: dict[str, list[Cell]] = {}
        for cell in todo:
            groups.setdefault(_model_key(cell.config), []).append(cell)
        progress = Progress({cell.number: _work(cell.config) for cell in todo})
        try:
            with sweep_logging():
                for key, group in groups.items():
                    self._run_group(group, self._resources(key, group), progress)
        finally:
            progress.close()
        return self._failures

    def _is_done(self, cell: Cell) -> bool:
        earlier = finished_run(cell.folder) if self._resumed else None
        if earlier is None:
            return False
        self._duplicates.add_finished(self._duplicates.key(earlier.record), cell.folder)
        return True

    def _resources(self, key: str, group: Sequence[Cell]) -> SharedResources:
        if key != self._key or self._shared is None:
            self._key, self._shared = key, None  # one model at a time: the memory of the last one is freed first
            gc.collect()
            limit = BatchLimit(self._batch, _most_samples([cell.config for cell in group]))
            self._shared = SharedResources(limit, self._straggler_seconds, self._duplicates)
        return self._shared

    def _run_group(self, group: Sequence[Cell], shared: SharedResources, progress: Progress) -> None:
        """Run the cells of one model."""
        solo = [cell for cell in group if self._needs_process(cell)]
        self._run_together([cell for cell in group if cell not in solo], shared, progress)
        for cell in solo:
            thread = CellThread(cell, self._run_cell, SoloContext(cell, shared, progress))
            thread.run()
            self._finish(thread, progress)

    def _needs_process(self, cell: Cell) -> bool:
        """Whether a cell does more with its model than to call it: a black-box loop, or networks that are offloaded."""
        entry = self._catalog.entries.get(("loop", cell.config["loop"].get("name")))
        return bool(entry and entry.traits.get("alone")) or cell.config["model"].get("offload", "none") != "none"

    def _run_together(self, cells: Sequence[Cell], shared: SharedResources, progress: Progress) -> None:
        """Run as many cells at once as fill two batches: while the rows of one are evaluated, other cells step."""
        rendezvous, waiting, threads = shared.rendezvous, deque(cells), list[CellThread]()
        watch = StallWatch(self._patience_seconds)
        try:
            while waiting or threads:
                while waiting and len(threads) < MAX_THREADS and rendezvous.rows < 2 * rendezvous.limit.value:
                    cell = waiting.popleft()
                    threads.append(CellThread(cell, self._run_cell, CellContext(cell, shared, progress)))
                    threads[-1].start()
                if rendezvous.serve(POLL_SECONDS):
                    watch.restart()
                progress.show()
                for thread in [thread for thread in threads if not thread.is_alive()]:
                    threads.remove(thread)
                    watch.restart()
                    self._finish(thread, progress)
                watch.check(threads)
        except BaseException:
            self._stop(shared, threads)
            raise

    def _stop(self, shared: SharedResources, threads: Sequence[CellThread]) -> None:
        """Let every running cell write what it has finished, or end at a second Ctrl-C."""
        try:
            shared.rendezvous.stop()
            running = sum(thread.is_alive() for thread in threads)
            advice = f"; go on later with: python -m diffexp {self._resume}" if self._resume else ""
            log.warning("stopping: %d cells write what they have finished%s", running, advice)
            watch = StallWatch(self._patience_seconds, "; a second Ctrl-C ends the sweep without")
            while any(thread.is_alive() for thread in threads):
                for thread in threads:
                    thread.join(POLL_SECONDS / len(threads))
                shared.abandoned |= watch.check(threads)
        finally:
            for thread in threads:
                if thread.status == "running":  # is_alive is wrong after an interrupt of join
                    record_interrupt(thread.cell.folder)

    def _finish(self, thread: CellThread, progress: Progress) -> None:
        """Log how a cell ended.

        Raises:
            KeyboardInterrupt: it was interrupted.
        """
        cell, failure = thread.cell, thread.failure
        if thread.status == "interrupted":
            raise KeyboardInterrupt
        if failure:
            self._failures.append(failure)
        result = failure.message if failure else metrics_line(read_metrics(cell.folder))
        name = " ".join(part for part in (cell.folder.name, self._words.get(cell.number)) if part)
        log.info("[%s] %s: %s%s", progress.count(), name, thread.status, result and f"  {result}")


def _model_key(config: Mapping[str, Any]) -> str:
    """A text that is equal for cells that load the same model."""
    return json.dumps([config[key] for key in ("model", "device", "dtype", "compile")], default=str)


def _work(config: Mapping[str, Any]) -> float:
    """An estimate of a cell's model evaluations."""
    limits = (config.get(key) for key in ("steps", "max_nfe", "max_forward_passes"))
    return float(min(most for most in limits if most is not None) * config["num_samples"])


def _most_samples(configs: Sequence[Mapping[str, Any]]) -> int:
    """The most samples per call: no more than one cell alone takes where running out of memory is fatal."""
    try:
        device = read_device(configs[0]["device"])
    except InputError:  # raised again, and recorded, by each cell
        return 1
    return MAX_ROWS if device.type == "cuda" else max(int(config["batch_size"]) for config in configs)
