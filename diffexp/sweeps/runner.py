"""Runs the cells of a sweep in this process: those that share a model together, each in a thread of its own."""

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from diffexp.catalog.discover import Catalog
from diffexp.errors import InputError
from diffexp.experiment.context import RunContext
from diffexp.experiment.device import read_device
from diffexp.experiment.resume import read_earlier
from diffexp.experiment.summary import metrics_line
from diffexp.files import read_json
from diffexp.sweeps.batch_size import MAX_ROWS, BatchLimit
from diffexp.sweeps.batching import STRAGGLER_SECONDS
from diffexp.sweeps.cell import Cell, distinguishing_words
from diffexp.sweeps.context import CellContext, SharedResources, SoloContext, SweepContext
from diffexp.sweeps.duplicates import DuplicateRuns, samples_key
from diffexp.sweeps.failures import Failure, clear_failure, record_failure
from diffexp.sweeps.logs import cell_logging, sweep_logging
from diffexp.sweeps.progress import Progress

log = logging.getLogger(__name__)

MAX_THREADS = 128
"""Cells that run at the same time, at most."""
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
        self._context = context

    def run(self) -> None:
        """Run the cell to its end; errors are recorded."""
        folder = self.cell.folder
        with ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(cell_logging(folder))
                clear_failure(folder)
                self._run_cell(self.cell, self._context)
                self.status = "done"
            except KeyboardInterrupt:
                self.status = "interrupted"
            except BaseException as error:  # the other cells continue
                self.status, self.failure = "failed", record_failure(folder, error)
            finally:
                self._context.end(self.status)


class Runner:
    """Runs the cells of one sweep; the model and what is known of finished cells stay for the next call.

    Args:
        run_cell: runs one cell.
        catalog: the options that there are.
        batch: samples in one call of a model; None: as many as its device likes best.
        resumed: whether cells that are done already are skipped.
        straggler_seconds: how long a call of the model waits for cells that do something else.
    """

    def __init__(
        self,
        run_cell: RunCell,
        catalog: Catalog,
        batch: int | None,
        resumed: bool,
        straggler_seconds: float = STRAGGLER_SECONDS,
    ) -> None:
        self._run_cell = run_cell
        self._catalog = catalog
        self._batch = batch
        self._resumed = resumed
        self._straggler_seconds = straggler_seconds
        self._duplicates = DuplicateRuns()
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
        earlier = read_earlier(cell.folder)
        if not self._resumed or earlier is None or earlier.record.get("status") != "done":
            return False
        self._duplicates.add_finished(samples_key(earlier.record), cell.folder)
        return True

    def _resources(self, key: str, group: Sequence[Cell]) -> SharedResources:
        if key != self._key or self._shared is None:
            self._key, self._shared = key, None  # one model at a time: the memory of the last one is freed first
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
        try:
            while waiting or threads:
                while waiting and len(threads) < MAX_THREADS and rendezvous.rows < 2 * rendezvous.limit.value:
                    cell = waiting.popleft()
                    threads.append(CellThread(cell, self._run_cell, CellContext(cell, shared, progress)))
                    threads[-1].start()
                rendezvous.serve(POLL_SECONDS)
                progress.show()
                for thread in [thread for thread in threads if not thread.is_alive()]:
                    threads.remove(thread)
                    self._finish(thread, progress)
        except BaseException:
            rendezvous.stop()
            for thread in threads:
                thread.join()
            raise

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
        result = failure.message if failure else metrics_line(read_json(cell.folder / "metrics.json"))
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
