"""Resources that the cells of a sweep share: the model, the processor, the progress, samples that are equal."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffexp.components.models.base import Condition, Model
from diffexp.components.models.passes import with_predict
from diffexp.experiment.context import Bar, RunContext
from diffexp.experiment.writer import Writer
from diffexp.sweeps.batch_size import BatchLimit
from diffexp.sweeps.batching import Client, Rendezvous
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.duplicates import DuplicateRuns
from diffexp.sweeps.ending import Ending
from diffexp.sweeps.progress import Progress

POLL_SECONDS = 0.2
"""How soon a cell that waits for another notices that the other is abandoned."""


class LoadedModel:
    """The model of all cells; a ``Rendezvous`` calls it, which refers to nothing else, so that it is freed at once."""

    def __init__(self) -> None:
        self._model: Model | None = None
        self._error: Exception | None = None

    def get(self, load: Callable[[], Model]) -> Model:
        """The model, loaded by the first cell that needs it; all cells get the error of a failed attempt."""
        if self._error:
            raise self._error
        if self._model is None:
            try:
                self._model = load()
                _ = self._model.weights_sha256  # computed once, before there are copies
            except Exception as error:
                self._error = error
                raise
        return self._model

    def predict(self, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert self._model is not None
        return self._model.predict(u, t, condition)


class SharedResources:
    """Resources of all cells that run on one model."""

    def __init__(self, limit: BatchLimit, straggler_seconds: float, duplicates: DuplicateRuns, ending: Ending) -> None:
        self.loaded = LoadedModel()
        self.rendezvous = Rendezvous(self.loaded.predict, limit, straggler_seconds)
        self.duplicates = duplicates
        self.ending = ending
        self.loading = threading.Lock()
        """Held by the one cell that loads the model."""
        self.processor = threading.Lock()
        """Held by the one cell that does CPU-heavy work: several at once only slow each other down."""
        self.abandoned = False
        """Whether cells that wait for another one give up, because that one holds up the end of the sweep."""

    def raise_if_abandoned(self) -> None:
        """Raise KeyboardInterrupt in a cell that waits for one that is abandoned."""
        if self.abandoned:
            raise KeyboardInterrupt


class SweepContext(RunContext):
    """A cell of a sweep."""

    def __init__(self, cell: Cell, shared: SharedResources, progress: Progress) -> None:
        self._cell = cell
        self._shared = shared
        self._progress = progress
        self._bar = progress.start(cell.number)
        self.waits = False
        """Whether the cell waits for others, which then hold it up."""

    def model(self, load: Callable[[], Model]) -> Model:
        return self._shared.loaded.get(load)

    def bar(self, total: int) -> Bar:
        self._bar.n, self._bar.total = 0, total
        return self._bar

    @contextmanager
    def sampling(self) -> Iterator[None]:
        with self._shared.ending.batch():
            yield

    def finished(self, samples: int) -> None:
        self._progress.finished(samples)

    def end(self, status: str) -> None:
        """Record that the cell is over: ``done``, ``failed`` or ``interrupted``."""
        self._progress.end(self._cell.number, status)


class SoloContext(SweepContext):
    """A cell that has the process to itself, after the others of its model."""

    def __init__(self, cell: Cell, shared: SharedResources, progress: Progress) -> None:
        super().__init__(cell, shared, progress)
        self._bar.show = progress.show


class CellContext(SweepContext):
    """A cell that runs beside others, in a thread of its own.

    The others wait for its calls from the moment this object is made until its first batch of samples is there, and
    while it samples each of the following ones.
    """

    def __init__(self, cell: Cell, shared: SharedResources, progress: Progress) -> None:
        super().__init__(cell, shared, progress)
        self._client = Client(cell.number, rows=min(int(cell.config["batch_size"]), cell.samples))
        self._result = Future[Path | None]()
        self._registration = ExitStack()
        self._register()

    def _register(self) -> None:
        self._registration.enter_context(self._shared.rendezvous.sampling(self._client))

    def model(self, load: Callable[[], Model]) -> Model:
        with self._alone(self._shared.loading):
            model = super().model(load)
        return with_predict(model, self._predict)

    def _predict(self, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        with self._waiting():
            return self._shared.rendezvous.predict(self._client, u, t, condition)

    def clock(self) -> float:
        """The processor time of this thread and the cell's share of the time of model calls, in seconds."""
        return time.thread_time() + self._client.seconds

    def writer(self) -> Writer:
        """The cell itself: it is a thread beside the one that calls the model, for the other cells."""
        return Writer()

    def synchronize(self, device: torch.device) -> None:
        """Do nothing: every call of the model has been waited for where it was timed."""

    @contextmanager
    def sampling(self) -> Iterator[None]:
        with super().sampling(), self._registration:
            self._register()
            yield

    @contextmanager
    def cpu_section(self) -> Iterator[None]:
        with self._alone(self._shared.processor):
            yield

    @contextmanager
    def _alone(self, lock: threading.Lock) -> Iterator[None]:
        """Hold a lock."""
        with self._waiting():
            while not lock.acquire(timeout=POLL_SECONDS):
                self._shared.raise_if_abandoned()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self.waits = True
        try:
            yield
        finally:
            self.waits = False

    def find_duplicate(self, record: Mapping[str, Any]) -> Path | None:
        key = self._shared.duplicates.key(record)
        while (first := self._shared.duplicates.claim(key, self._result)) is not self._result:
            if not first.done():
                self._registration.close()  # nobody waits for a cell that waits for another
            with self._waiting():
                while not wait([first], POLL_SECONDS).done:
                    self._shared.raise_if_abandoned()
            if folder := first.result():
                return folder
        return None

    def end(self, status: str) -> None:
        self._registration.close()
        self._result.set_result(self._cell.folder if status == "done" else None)
        super().end(status)
