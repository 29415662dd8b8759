"""What the cells of a batched sweep share: the model, the processor, samples that are the same."""

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffexp.components.models.base import Condition, Model
from diffexp.experiment.context import Bar, RunContext
from diffexp.sweeps.batching import Batcher, Seat
from diffexp.sweeps.duplicates import Twins, samples_key
from diffexp.sweeps.progress import Progress

log = logging.getLogger(__name__)

Predict = Callable[[Tensor, Tensor, Condition], Tensor]


class Shared:
    """The belongings of all cells that run on one model."""

    def __init__(self, batcher: Batcher, twins: Twins) -> None:
        self.batcher = batcher
        self.twins = twins
        self.processor = threading.Lock()
        """Held by the one cell that may be busy with more than its steps: several at once only slow each other down."""
        self._loading = threading.Lock()
        self._error: Exception | None = None

    def model(self, load: Callable[[], Model]) -> Model:
        """The model, loaded by whoever wants it first; an error is everyone's."""
        with self._loading:
            if self._error:
                raise self._error
            if self.batcher.model is None:
                try:
                    self.batcher.model = load()
                    _ = self.batcher.model.weights_sha256  # computed once, before there are copies
                except Exception as error:
                    self._error = error
                    raise
            return self.batcher.model


class CellContext(RunContext):
    """One cell among others."""

    def __init__(self, shared: Shared, seat: Seat, folder: Path, progress: Progress) -> None:
        self._shared = shared
        self._seat = seat
        self._folder = folder
        self._progress = progress
        self._bar = progress.start(seat.number)
        self._claimed: str | None = None
        self._seated = True
        """Whether it is still to draw."""

    def model(self, load: Callable[[], Model]) -> Model:
        model = self._shared.model(load)
        return answered_by(model, partial(self._shared.batcher.ask, self._seat))

    def clock(self) -> float:
        """The work of this thread, and the cell's share of the model's."""
        return time.thread_time() + self._seat.seconds

    def bar(self, total: int) -> Bar:
        self._bar.n, self._bar.total = 0, total
        return self._bar

    def synchronize(self, device: torch.device) -> None:
        self._shared.batcher.synchronize(self._seat)

    def finished(self, samples: int) -> None:
        self._progress.finished(samples)

    @contextmanager
    def drawing(self, device: torch.device) -> Iterator[None]:
        try:
            yield
        finally:
            self._seated = False
            self._shared.batcher.leave(self._seat)

    @contextmanager
    def cpu_section(self) -> Iterator[None]:
        lock = self._shared.processor
        if not lock.acquire(blocking=False):
            # Nobody waits for one that waits; whoever holds the lock may ask the model again and again (``Reference``).
            with self._away() if self._seat.asked and self._seated else nullcontext():
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def twin(self, record: Mapping[str, Any]) -> Path | None:
        key, twins = samples_key(record), self._shared.twins
        with self._away() if twins.drawing(key) else nullcontext():
            found = twins.claim(key)
        if found is None:
            self._claimed = key
        return found

    def end(self, status: str) -> None:
        if self._claimed:
            self._shared.twins.settle(self._claimed, self._folder if status == "done" else None)
        self._progress.end(self._seat.number, status)
        self._shared.batcher.leave(self._seat)

    @contextmanager
    def _away(self) -> Iterator[None]:
        """Not waited for."""
        self._shared.batcher.leave(self._seat)
        try:
            yield
        finally:
            self._shared.batcher.sit(self._seat)


class SoloContext(RunContext):
    """A cell that has the process to itself, after the others of its model."""

    def __init__(self, shared: Shared, number: int, progress: Progress) -> None:
        self._shared = shared
        self._number = number
        self._progress = progress
        self._bar = progress.start(number)
        self._bar.show = progress.show

    def model(self, load: Callable[[], Model]) -> Model:
        return self._shared.model(load)

    def bar(self, total: int) -> Bar:
        self._bar.n, self._bar.total = 0, total
        return self._bar

    def finished(self, samples: int) -> None:
        self._progress.finished(samples)

    def end(self, status: str) -> None:
        self._progress.end(self._number, status)


def answered_by(model: Model, predict: Predict) -> Model:
    """The same model with another ``predict``; everything else is shared with the original."""
    other = copy.copy(model)
    # Past a frozen dataclass's guard. An attribute of the object comes before a method of its class.
    object.__setattr__(other, "predict", predict)
    return other
