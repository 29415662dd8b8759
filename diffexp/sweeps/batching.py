"""One model for many runs: calls that their threads make at the same time are combined into one.

Every run of a sweep is a thread that executes the ordinary code of a run; only its model's ``predict`` is that of a
``Rendezvous``. Threads rather than greenlets or generators, because loops and plugins call ``network(u, level)``
synchronously, and because the stacks of ``torch.inference_mode`` and ``TorchFunctionMode`` are thread-local: switching
greenlets inside them would interleave the entries and exits of different runs.
"""

import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from diffexp.components.guidance.base import Predict
from diffexp.components.models.base import Condition
from diffexp.experiment.device import out_of_memory
from diffexp.sweeps.batch_size import BatchLimit

STRAGGLER_SECONDS = 0.5
"""A batch runs without the clients that have not called for this long."""

MergeKey = tuple[Hashable, ...]
"""Calls with equal keys can be combined."""


@dataclass(eq=False)
class Client:
    """A run that shares the model."""

    number: int
    rows: int
    """Samples per call, as far as known."""
    seconds: float = 0.0
    """Its share of the time of all calls: of each the wall time x its rows / all rows."""


@dataclass(eq=False)
class Call:
    """``Model.predict`` with these arguments, and its output once there is one."""

    client: Client
    u: Tensor
    t: Tensor
    condition: Condition
    key: MergeKey | None
    inference: bool
    """Whether the caller is in inference mode."""
    output: Future[Tensor] = field(default_factory=Future)


class Rendezvous:
    """Combines the calls of many threads into as few calls of ``predict`` as its ``limit`` allows.

    A batch runs once every client inside ``sampling`` has called, or enough rows for a full batch are there. A client
    that keeps the others waiting for ``straggler_seconds`` is not waited for any more until it enters ``sampling``
    anew; its calls join whichever batch comes next.
    """

    def __init__(self, predict: Predict, limit: BatchLimit, straggler_seconds: float = STRAGGLER_SECONDS) -> None:
        self.limit = limit
        self._predict = predict
        self._straggler_seconds = straggler_seconds
        self._changed = threading.Condition()
        self._clients: set[Client] = set()
        self._waiting: list[Call] = []
        self._client_left = self._stopped = False
        self._last_change = time.monotonic()
        self._merge = lru_cache(maxsize=4)(merge)  # the same runs call with the same conditions at every step

    @contextmanager
    def sampling(self, client: Client) -> Iterator[None]:
        """Make batches wait for this client until the block ends."""
        with self._changed:
            self._clients.add(client)
            self._last_change = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._clients.discard(client)
                self._last_change = time.monotonic()
                self._client_left = True
                self._changed.notify()

    @property
    def rows(self) -> int:
        """Samples per call of all clients inside ``sampling`` together."""
        with self._changed:
            return sum(client.rows for client in self._clients)

    def predict(self, client: Client, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Evaluate the model in the thread that calls ``serve``, also for clients outside ``sampling``.

        Raises:
            KeyboardInterrupt: ``stop`` was called.
            Exception: raised by the model.
        """
        if torch.is_grad_enabled() and u.requires_grad:  # an autograd graph belongs to its thread
            return self._predict(u, t, condition)
        call = Call(client, u, t, condition, merge_key(u, t, condition), torch.is_inference_mode_enabled())
        with self._changed:
            if self._stopped:
                raise KeyboardInterrupt
            client.rows = len(u)
            self._waiting.append(call)
            self._last_change = time.monotonic()
            if self._ready():
                self._changed.notify()
        return call.output.result()

    def serve(self, seconds: float) -> bool:
        """Run one batch; return False, without one, after ``seconds`` or when a client has left."""
        with self._changed:
            self._changed.wait_for(lambda: self._client_left or self._ready(), seconds)
            self._client_left = False
            if not self._ready() and not self._drop_stragglers():
                return False
            batch = self._next_batch()
        try:
            self._run(batch)
        finally:
            with self._changed:
                self._last_change = time.monotonic()
                # None, unless an interrupt came between: ``stop`` has to reach them.
                self._waiting += [call for call in batch if not call.output.done()]
        return True

    def stop(self) -> None:
        """Raise KeyboardInterrupt in all threads that wait in ``predict`` or call it from now on."""
        with self._changed:
            self._stopped = True
            for call in self._waiting:
                call.output.set_exception(KeyboardInterrupt())
            self._waiting.clear()

    def _ready(self) -> bool:
        if not self._waiting:
            return False
        key = self._waiting[0].key  # of the oldest call, which the next batch begins with
        rows = sum(len(call.u) for call in self._waiting if call.key == key)
        return rows >= self.limit.value or self._clients <= {call.client for call in self._waiting}

    def _drop_stragglers(self) -> bool:
        """Stop waiting for the clients that have not called, if they had enough time; whether they had."""
        if not self._waiting or time.monotonic() < self._last_change + self._straggler_seconds:
            return False
        self._clients &= {call.client for call in self._waiting}
        return True

    def _next_batch(self) -> list[Call]:
        """Take the oldest call, and those that can be combined with it, up to the limit."""
        first = self._waiting[0]
        batch, rows = [first], len(first.u)
        for call in self._waiting[1:]:
            fits = rows + len(call.u) <= self.limit.value
            if fits and call.key is not None and (call.key, call.inference) == (first.key, first.inference):
                batch.append(call)
                rows += len(call.u)
        self._waiting = [call for call in self._waiting if call not in batch]
        # In a fixed order, so that the same runs make the same batch at every step.
        return sorted(batch, key=lambda call: call.client.number)

    def _run(self, batch: Sequence[Call]) -> None:
        try:
            with torch.inference_mode() if batch[0].inference else torch.no_grad():
                outputs = self._evaluate(batch).split([len(call.u) for call in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].output.set_exception(error)
                return
            outputs = None
        if outputs is None:  # after the handler, which keeps the memory of the failed batch
            for call in batch:  # only the faulty one gets the error
                self._run([call])
            return
        for call, output in zip(batch, outputs):
            call.output.set_result(output)

    def _evaluate(self, batch: Sequence[Call]) -> Tensor:
        """Evaluate all rows of a batch, in one call of the model if the limit and the memory allow that."""
        u, t = torch.cat([call.u for call in batch]), torch.cat([call.t for call in batch])
        condition = self._merge(tuple(call.condition for call in batch))
        outputs: list[Tensor] = []
        start = 0
        while start < len(u):
            rest = len(u) - start
            stop = start + (rest if batch[0].key is None else even_part(rest, self.limit.value))
            rows = condition if stop - start == len(u) else rows_of(condition, start, stop)
            try:
                outputs.append(self._timed(batch, len(u), u[start:stop], t[start:stop], rows))
            except RuntimeError as error:
                if stop - start == 1 or batch[0].key is None or not out_of_memory(error):
                    raise
                self.limit.shrink((stop - start) // 2)
                continue
            start = stop
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _timed(self, batch: Sequence[Call], total: int, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Evaluate some of the ``total`` rows of a batch, at the cost of its clients."""
        began = time.perf_counter()
        output = self._predict(u, t, condition)
        if u.device.type != "cpu":
            torch.accelerator.synchronize(u.device)
        seconds = time.perf_counter() - began
        self.limit.record(len(u), seconds)
        for call in batch:
            call.client.seconds += seconds * len(call.u) / total
        return output


def even_part(rows: int, limit: int) -> int:
    """Size of the first of the fewest equal parts of at most ``limit`` rows."""
    parts = -(-rows // limit)
    return -(-rows // parts)


def merge_key(u: Tensor, t: Tensor, condition: Condition) -> MergeKey | None:
    """The properties that calls must have in common to be combined; None for a call that cannot be combined at all.

    Of a condition only the positive side counts, the one that a network is given.
    """
    values = [*condition.positive.values(), t]
    if type(condition) is not Condition or not all(
        isinstance(v, Tensor) and v.shape[:1] == u.shape[:1] for v in values
    ):
        return None
    keywords = ((key, value.shape[1:], value.dtype) for key, value in sorted(condition.positive.items()))
    return (u.shape[1:], u.dtype, t.shape[1:], t.dtype, *keywords)


def merge(conditions: Sequence[Condition]) -> Condition:
    """The positive sides of conditions, one after the other."""
    if len(conditions) == 1:
        return conditions[0]
    keys = conditions[0].positive
    positive = {key: torch.cat([condition.positive[key] for condition in conditions]) for key in keys}
    return Condition(positive, None, [caption for condition in conditions for caption in condition.captions])


def rows_of(condition: Condition, start: int, stop: int) -> Condition:
    """The positive side of some of the samples."""
    positive = {key: value[start:stop] for key, value in condition.positive.items()}
    return Condition(positive, None, condition.captions[start:stop])
