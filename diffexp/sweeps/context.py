"""Resources that the cells of a sweep share: the model, the processor, the progress, samples that are equal."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffexp.components.models.base import Condition, Model
from diffexp.components.models.passes import with_predict
from diffexp.experiment.context import Bar, RunContext
from diffexp.sweeps.batch_size import BatchLimit
from diffexp.sweeps.batching import Client, Rendezvous
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.duplicates import DuplicateRuns, samples_key
from diffexp.sweeps.progress import Progress


class SharedResources:
    """Resources of all cells that run on one model."""

    def __init__(self, limit: BatchLimit, straggler_seconds: float, duplicates: DuplicateRuns) -> None:
        self.rendezvous = Rendezvous(self._predict, limit, straggler_seconds)
        self.duplicates = duplicates
        self.processor = threading.Lock()
        """Held by the one cell that does CPU-heavy work: several at once only slow each other down."""
        self._loading = threading.Lock()
        self._model: Model | None = None
        self._error: Exception | None = None

    def model(self, load: Callable[[], Model]) -> Model:
        """The model, loaded by the first cell that needs it; all cells get the error of a failed attempt."""
        with self._loading:
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

    def _predict(self, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert self._model is not None
        return self._model.predict(u, t, condition)


class SweepContext(RunContext):
    """A cell of a sweep."""

    def __init__(self, cell: Cell, shared: SharedResources, progress: Progress) -> None:
        self._cell = cell
        self._shared = shared
        self._progress = progress
        self._bar = progress.start(cell.number)

    def model(self, load: Callable[[], Model]) -> Model:
        return self._shared.model(load)

    def bar(self, total: int) -> Bar:
        self._bar.n, self._bar.total = 0, total
        return self._bar

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
        self._client = Client(cell.number, rows=min(int(cell.config["batch_size"]), int(cell.config["num_samples"])))
        self._result = Future[Path | None]()
        self._registration = ExitStack()
        self._register()

    def _register(self) -> None:
        self._registration.enter_context(self._shared.rendezvous.sampling(self._client))

    def model(self, load: Callable[[], Model]) -> Model:
        model = super().model(load)
        return with_predict(model, partial(self._shared.rendezvous.predict, self._client))

    def clock(self) -> float:
        """The processor time of this thread and the cell's share of the time of model calls, in seconds."""
        return time.thread_time() + self._client.seconds

    def synchronize(self, device: torch.device) -> None:
        """Do nothing: every call of the model has been waited for where it was timed."""

    @contextmanager
    def sampling(self) -> Iterator[None]:
        with self._registration:
            self._register()
            yield

    @contextmanager
    def cpu_section(self) -> Iterator[None]:
        with self._shared.processor:
            yield

    def find_duplicate(self, record: Mapping[str, Any]) -> Path | None:
        key = samples_key(record)
        while (first := self._shared.duplicates.claim(key, self._result)) is not self._result:
            if not first.done():
                self._registration.close()  # nobody waits for a cell that waits for another
            if folder := first.result():
                return folder
        return None

    def end(self, status: str) -> None:
        self._registration.close()
        self._result.set_result(self._cell.folder if status == "done" else None)
        super().end(status)
