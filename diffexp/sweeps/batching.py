"""One model for many runs: what their threads ask at the same time becomes one call.

Each run has a ``Seat``. A thread that asks waits until the serving thread has answered; that one waits until every
seated run has asked or left, or until enough samples for a full call have come together. Nobody waits for long for a
run that does something else meanwhile, so that no run can hold up the others, whatever it does.
"""

import threading
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from diffexp.components.models.base import Condition, Model
from diffexp.experiment.device import out_of_memory
from diffexp.sweeps.batch_size import BatchLimit
from diffexp.sweeps.timing import Timed, timed

Kind = tuple[Hashable, ...]
"""Batches of equal kind can go into one call of a model."""


STARTING_SECONDS, PATIENCE_SECONDS = 0.5, 0.05
"""How long after the last sign of anyone the others wait for runs that have not asked yet, and for those that have."""


@dataclass(eq=False)
class Seat:
    """A run's place among those that share a model."""

    number: int
    rows: int
    """Samples that it asks with, as far as known."""
    asked: bool = False
    """Ever."""
    seconds: float = 0.0
    """Its share of the calls that it had part in: by samples."""


@dataclass(eq=False)
class Request:
    """``Model.predict`` with these arguments, and what became of it."""

    seat: Seat
    u: Tensor
    t: Tensor
    condition: Condition
    kind: Kind | None
    """None: goes into a call of its own."""
    inference: bool
    """Asked in inference mode."""
    done: threading.Event = field(default_factory=threading.Event)
    output: Tensor | None = None
    error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.done.set()


class Batcher:
    """Answers the questions of many threads with as few calls of ``model`` as its ``limit`` allows."""

    def __init__(self, limit: BatchLimit) -> None:
        self.limit = limit
        self.model: Model | None = None
        """Set before anyone asks."""
        self._changed = threading.Condition()
        self._seats: set[Seat] = set()
        self._waiting: list[Request] = []
        self._in_work: list[Request] = []
        self._stopped = False
        self._news = False
        self._last_sign = time.perf_counter()
        self._last_call = 0.0
        self._untimed: list[tuple[Timed, int, Mapping[Seat, float]]] = []
        self._merge = lru_cache(maxsize=4)(merge)  # the same runs ask with the same conditions at every step

    def sit(self, seat: Seat) -> None:
        """From now on the others wait for this run."""
        with self._sign():
            self._seats.add(seat)

    def leave(self, seat: Seat) -> None:
        """Nobody waits for this run any more; it may go on to ask."""
        with self._sign():
            self._seats.discard(seat)
            self._news = True

    @property
    def rows(self) -> int:
        """Samples that the seated runs ask with, all together."""
        with self._changed:
            return sum(seat.rows for seat in self._seats)

    def ask(self, seat: Seat, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """``model.predict(u, t, condition)``, answered by the thread that calls ``serve``.

        Raises:
            KeyboardInterrupt: ``stop`` was called.
            Exception: what the model raised.
        """
        assert self.model is not None
        if torch.is_grad_enabled() and u.requires_grad:  # an autograd graph is its thread's own
            return self.model.predict(u, t, condition)
        request = Request(seat, u, t, condition, kind_of(u, t, condition), torch.is_inference_mode_enabled())
        with self._changed:
            if self._stopped:
                raise KeyboardInterrupt
            seat.rows, seat.asked = len(u), True
            self._waiting.append(request)
            self._last_sign = time.perf_counter()
            if len(self._waiting) == 1 or self._ready():
                self._changed.notify()
        request.done.wait()
        if request.error is not None:
            raise request.error
        assert request.output is not None
        return request.output

    def serve(self, seconds: float) -> None:
        """Answer those who wait, in one call; return without one after ``seconds``, or once a run has left."""
        with self._changed:
            deadline = time.perf_counter() + seconds
            while not self._news and not self._ready():
                now = time.perf_counter()
                until = min(deadline, self._last_sign + self._patience()) if self._waiting else deadline
                if now >= deadline:
                    return
                self._changed.wait(max(0.0, until - now) + 1e-4)
            self._news = False
            if not self._ready():
                return
            self._in_work = self._take()
        self._answer(self._in_work)
        self._in_work = []

    def stop(self) -> None:
        """Whoever waits, or asks from now on, gets a KeyboardInterrupt."""
        with self._sign():
            self._stopped = True
            for request in (*self._waiting, *self._in_work):
                request.fail(KeyboardInterrupt())
            self._waiting.clear()

    def synchronize(self, seat: Seat) -> None:
        """Wait until every call that the seat had part in is over on its device, and entered into its account."""
        while True:
            self._account()
            with self._changed:
                if not any(seat in shares for _, _, shares in self._untimed):
                    return
            time.sleep(1e-3)

    def _account(self) -> None:
        with self._changed:
            calls, self._untimed = self._untimed, []
            for call, size, shares in calls:
                took = call.seconds()
                if took is None:
                    self._untimed.append((call, size, shares))
                    continue
                self.limit.record(size, took)
                for seat, share in shares.items():
                    seat.seconds += took * share

    @contextmanager
    def _sign(self) -> Iterator[None]:
        """Under the lock: something happens that the serving thread should see."""
        with self._changed:
            self._last_sign = time.perf_counter()
            yield
            self._changed.notify()

    def _ready(self) -> bool:
        """Whether it is time for a call."""
        if not self._waiting:
            return False
        if sum(len(request.u) for request in self._waiting) >= self.limit.value:
            return True
        if self._seats <= {request.seat for request in self._waiting}:
            return True
        return time.perf_counter() >= self._last_sign + self._patience()

    def _patience(self) -> float:
        known = max(PATIENCE_SECONDS, self._last_call)
        return known if all(seat.asked for seat in self._seats) else max(STARTING_SECONDS, known)

    def _take(self) -> list[Request]:
        """Who has waited longest, and those whose questions go together with that one, up to the limit."""
        first = self._waiting[0]
        taken, rows = [first], len(first.u)
        for request in self._waiting[1:]:
            fits = rows + len(request.u) <= self.limit.value
            if fits and request.kind is not None and (request.kind, request.inference) == (first.kind, first.inference):
                taken.append(request)
                rows += len(request.u)
        self._waiting = [request for request in self._waiting if request not in taken]
        # In a fixed order, so that the same runs make the same batch at every step.
        return sorted(taken, key=lambda request: request.seat.number)

    def _answer(self, requests: Sequence[Request]) -> None:
        try:
            with torch.inference_mode() if requests[0].inference else torch.no_grad():
                outputs = self._call(requests).split([len(request.u) for request in requests])
        except Exception as error:
            if len(requests) == 1:
                requests[0].fail(error)
                return
            for request in requests:  # only whoever asked for the impossible gets the error
                self._answer([request])
            return
        for request, output in zip(requests, outputs):
            request.output = output
            request.done.set()

    def _call(self, requests: Sequence[Request]) -> Tensor:
        u = torch.cat([request.u for request in requests])
        t = torch.cat([request.t for request in requests])
        condition = self._merge(tuple(request.condition for request in requests))
        shares = dict.fromkeys((request.seat for request in requests), 0.0)
        for request in requests:  # of one run there may be several
            shares[request.seat] += len(request.u) / len(u)
        if requests[0].kind is None:
            return self._timed(u, t, condition, shares)
        outputs: list[Tensor] = []
        start = 0
        while start < len(u):
            parts = -(-(len(u) - start) // self.limit.value)
            size = -(-(len(u) - start) // parts)
            stop = start + size
            own = condition if size == len(u) else part_of(condition, start, stop)
            try:
                outputs.append(self._timed(u[start:stop], t[start:stop], own, shares))
            except RuntimeError as error:
                if size == 1 or not out_of_memory(error):
                    raise
                self.limit.shrink(size // 2)
                continue
            start = stop
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _timed(self, u: Tensor, t: Tensor, condition: Condition, shares: Mapping[Seat, float]) -> Tensor:
        began = time.perf_counter()
        call = timed(u.device)
        assert self.model is not None
        output = self.model.predict(u, t, condition)
        call.end()
        self._last_call = time.perf_counter() - began
        with self._changed:
            self._untimed.append((call, len(u), shares))
        self._account()
        return output


def kind_of(u: Tensor, t: Tensor, condition: Condition) -> Kind | None:
    """What must be equal for two batches to be put together; None where that is out of the question.

    Only the positive side counts, the one that a network is given.
    """
    values = [*condition.positive.values(), t]
    if type(condition) is not Condition or not all(
        isinstance(v, Tensor) and v.shape[:1] == u.shape[:1] for v in values
    ):
        return None
    keywords = ((key, value.shape[1:], value.dtype) for key, value in sorted(condition.positive.items()))
    return (u.shape[1:], u.dtype, t.shape[1:], t.dtype, *keywords)


def merge(conditions: Sequence[Condition]) -> Condition:
    """The positive side of batches of one kind, one batch after the other."""
    if len(conditions) == 1:
        return conditions[0]
    keys = conditions[0].positive
    positive = {key: torch.cat([condition.positive[key] for condition in conditions]) for key in keys}
    return Condition(positive, None, [caption for condition in conditions for caption in condition.captions])


def part_of(condition: Condition, start: int, stop: int) -> Condition:
    """The positive side of some of the samples."""
    positive = {key: value[start:stop] for key, value in condition.positive.items()}
    return Condition(positive, None, condition.captions[start:stop])
