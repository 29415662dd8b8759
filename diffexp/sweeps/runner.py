"""Runs the cells of a sweep in this process: those that share a model together, each in a thread of its own."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from diffexp.catalog.discover import Catalog
from diffexp.errors import InputError
from diffexp.experiment.context import RunContext
from diffexp.experiment.device import read_device
from diffexp.experiment.finished import finished_run
from diffexp.files import read_json
from diffexp.sweeps.batch_size import MAX_ROWS, BatchLimit
from diffexp.sweeps.batching import STRAGGLER_SECONDS
from diffexp.sweeps.cell import Cell, amount_of_work, distinguishing_words
from diffexp.sweeps.context import CellContext, SharedResources, SoloContext, SweepContext
from diffexp.sweeps.duplicates import DuplicateRuns
from diffexp.sweeps.ending import Ending
from diffexp.sweeps.failures import Failure, clear_failure, record_failure, record_interrupt
from diffexp.sweeps.logs import cell_logging, sweep_logging
from diffexp.sweeps.outcome import end_line, stopping_text
from diffexp.sweeps.progress import Progress
from diffexp.sweeps.source import CellList, Elsewhere, Source

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

    def __init__(self, cell: Cell, source: Source, run_cell: RunCell, context: SweepContext) -> None:
        super().__init__(name=cell.folder.name, daemon=True)  # so that a second Ctrl-C need not wait for it
        self.cell = cell
        self._source = source
        self.status = "running"
        self.failure: Failure | None = None
        self._run_cell = run_cell
        self.context = context

    def run(self) -> None:
        """Run the cell to its end; errors are recorded."""
        folder = self.cell.folder
        with ExitStack() as stack:
            try:
                stack.enter_context(self._source.claim(self.cell))
                stack.enter_context(cell_logging(folder))
                self._run_cell(self.cell, self.context)
                clear_failure(folder)  # perhaps of another process, which found the folder in use
                self.status = "done"
            except Elsewhere:
                self.status = "elsewhere"
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
        resume: what continues the sweep, as in ``resume=outputs/multirun/...``; empty if nothing does.
        straggler_seconds: how long a call of the model waits for cells that do something else.
        patience_seconds: how long nothing happens before the cells that hold up the others are named.
        ending: whether this process is to end; None: by an interrupt only.
    """

    def __init__(
        self,
        run_cell: RunCell,
        catalog: Catalog,
        batch: int | None,
        straggler_seconds: float = STRAGGLER_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        resume: str = "",
        ending: Ending | None = None,
    ) -> None:
        self._run_cell = run_cell
        self._catalog = catalog
        self._batch = batch
        self._straggler_seconds = straggler_seconds
        self._patience_seconds = patience_seconds
        self._resume = resume
        self._ending = ending or Ending()
        self._duplicates = DuplicateRuns(catalog)
        self._model = ""
        self._shared: SharedResources | None = None
        self._words: dict[int, str] = {}
        self._failures: list[Failure] = []

    def run(self, cells: Sequence[Cell], resumed: bool) -> list[Failure]:
        """Run all cells, those that cannot share a model at the end.

        Args:
            resumed: whether cells that are done already are skipped.

        Returns:
            The failures among them.

        Raises:
            KeyboardInterrupt: after every cell has written what it had finished.
        """
        todo = [cell for cell in cells if not (resumed and self._is_done(cell))]
        if len(todo) < len(cells):
            log.info("%d of them are done already", len(cells) - len(todo))
        progress = Progress({cell.number: amount_of_work(cell) for cell in todo})
        self._words = distinguishing_words(cells)
        return self.run_from(CellList(todo, self._catalog), progress)

    def run_from(self, source: Source, progress: Progress) -> list[Failure]:
        """Run the cells of a source until it has no more; as ``run`` does."""
        self._failures = []
        try:
            with sweep_logging():
                while (model := source.next_model(self._model)) is not None:
                    self._run_model(model, source, progress)
        finally:
            progress.close()
        return self._failures

    def _is_done(self, cell: Cell) -> bool:
        done = finished_run(cell.folder) is not None
        if done:
            self.add_finished(cell.folder)
        return done

    def add_finished(self, folder: Path) -> None:
        """Note a cell that is done already: cells with the same samples copy its files."""
        self._duplicates.add_finished(self._duplicates.key(read_json(folder / "run.json")), folder)

    def _resources(self, model: str, source: Source) -> SharedResources:
        if model != self._model or self._shared is None:
            earlier, self._model, self._shared = self._shared is not None, model, None
            if earlier:  # one at a time: the memory of the last one is freed first
                gc.collect()
            limit = BatchLimit(self._batch, _most_samples(source.cells_of(model)))
            self._shared = SharedResources(limit, self._straggler_seconds, self._duplicates, self._ending)
        return self._shared

    def _run_model(self, model: str, source: Source, progress: Progress) -> None:
        """Run the cells of one model."""
        shared = self._resources(model, source)
        self._run_together(model, source, shared, progress)
        while cell := source.take(model, alone=True):
            thread = CellThread(cell, source, self._run_cell, SoloContext(cell, shared, progress))
            thread.run()
            self._finish(thread, source, progress)
            self._ending.check()

    def _run_together(self, model: str, source: Source, shared: SharedResources, progress: Progress) -> None:
        """Run as many cells at once as fill two batches: while the rows of one are evaluated, other cells step."""
        rendezvous, threads = shared.rendezvous, list[CellThread]()
        watch = StallWatch(self._patience_seconds)
        try:
            while True:
                self._ending.check()
                while self._may_begin(len(threads)) and rendezvous.rows < 2 * rendezvous.limit.value:
                    cell = source.take(model, alone=False)
                    if cell is None:
                        break
                    threads.append(CellThread(cell, source, self._run_cell, CellContext(cell, shared, progress)))
                    threads[-1].start()
                if not threads:
                    return
                if rendezvous.serve(POLL_SECONDS):
                    watch.restart()
                progress.show()
                for thread in [thread for thread in threads if not thread.is_alive()]:
                    threads.remove(thread)
                    watch.restart()
                    self._finish(thread, source, progress)
                watch.check(threads)
        except BaseException:
            self._stop(shared, threads)
            raise

    def _may_begin(self, running: int) -> bool:
        """Whether a further cell may begin beside those that run."""
        return running < MAX_THREADS and not self._ending.is_requested

    def _stop(self, shared: SharedResources, threads: Sequence[CellThread]) -> None:
        """Let every running cell write what it has finished, or end at a second Ctrl-C."""
        try:
            shared.rendezvous.stop()
            running = sum(thread.is_alive() for thread in threads)
            log.warning("%s", stopping_text(running, "cell", self._resume))
            watch = StallWatch(self._patience_seconds, "; a second Ctrl-C ends the sweep without")
            while any(thread.is_alive() for thread in threads):
                for thread in threads:
                    thread.join(POLL_SECONDS / len(threads))
                shared.abandoned |= watch.check(threads)
        finally:
            for thread in threads:
                if thread.status == "running":  # is_alive is wrong after an interrupt of join
                    record_interrupt(thread.cell.folder)

    def _finish(self, thread: CellThread, source: Source, progress: Progress) -> None:
        """Log how a cell ended.

        Raises:
            KeyboardInterrupt: it was interrupted, not to let other cells finish their batches.
        """
        cell, failure = thread.cell, thread.failure
        source.ended(cell, thread.status)
        if thread.status == "interrupted" and not self._ending.is_requested:
            raise KeyboardInterrupt
        if thread.status in ("elsewhere", "interrupted"):
            return
        if failure:
            self._failures.append(failure)
        if cell.round and not cell.round.final and not failure:  # it goes on after the others have got so far
            return
        message = failure.message if failure else None
        words = self._words.get(cell.number, "")
        log.info("[%s] %s", progress.count(), end_line(cell, words, thread.status, message, self._catalog))


def _most_samples(cells: Sequence[Cell]) -> int:
    """The most samples per call: no more than one cell alone takes where running out of memory is fatal."""
    try:
        device = read_device(cells[0].config["device"])
    except InputError:  # raised again, and recorded, by each cell
        return 1
    return MAX_ROWS if device.type == "cuda" else max(int(cell.config["batch_size"]) for cell in cells)
