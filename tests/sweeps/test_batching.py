"""One model for many threads: which calls are combined, what of them reaches the model, and how large its calls are."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from diffexp.components.models.base import Condition
from diffexp.sweeps.batch_size import START, BatchLimit
from diffexp.sweeps.batching import Client, Rendezvous, merge, merge_key, rows_of


@dataclass
class Toy:
    """``u * t + label``; notes the size of every call."""

    sizes: list[int] = field(default_factory=list)
    meet: Callable[[Tensor], None] = lambda u: None

    def predict(self, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.meet(u)
        self.sizes.append(len(u))
        rows = u * t.view(-1, *[1] * (u.ndim - 1))
        for value in condition.positive.values():
            rows = rows + value.view(-1, *[1] * (u.ndim - 1))
        return rows


def labels(*values: int, key: str = "label") -> Condition:
    return Condition({key: torch.tensor(values)}, None, [str(value) for value in values])


class Table:
    """A rendezvous with its serving thread, and runs as functions that get ``predict``."""

    def __init__(self, model: Any, limit: int = 64, straggler_seconds: float = 20.0) -> None:
        self.rendezvous = Rendezvous(model.predict, BatchLimit(limit), straggler_seconds)

    def run(self, *runs: Callable[..., Any]) -> list[Any]:
        """The results of the runs, or the errors that they raise."""
        self.clients = [Client(number, 1) for number in range(len(runs))]
        self.registrations = [ExitStack() for _ in runs]
        for registration, client in zip(self.registrations, self.clients):
            registration.enter_context(self.rendezvous.sampling(client))

        def live(run: Callable[..., Any], client: Client, registration: ExitStack) -> Any:
            with registration:
                try:
                    return run(partial(self.rendezvous.predict, client))
                except BaseException as error:
                    return error

        with ThreadPoolExecutor(len(runs)) as pool:
            results = [pool.submit(live, *rest) for rest in zip(runs, self.clients, self.registrations)]
            deadline = time.monotonic() + 60
            while not all(result.done() for result in results):
                self.rendezvous.serve(0.05)
                if time.monotonic() > deadline:
                    self.rendezvous.stop()
                    raise AssertionError("a run never ended")
        return [result.result() for result in results]


def asks(rows: int, steps: int, seed: int) -> tuple[Callable[..., list[Tensor]], list[Tensor]]:
    """A run of some steps, and what it should be told."""
    generator = torch.Generator().manual_seed(seed)
    us = [torch.randn(rows, 3, generator=generator) for _ in range(steps)]
    ts = [torch.full((rows,), float(seed + step)) for step in range(steps)]
    condition = labels(*range(seed, seed + rows))

    def run(ask: Callable[..., Tensor]) -> list[Tensor]:
        return [ask(u, t, condition) for u, t in zip(us, ts)]

    return run, [Toy().predict(u, t, condition) for u, t in zip(us, ts)]


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), min_size=1, max_size=6), st.integers(1, 9))
def test_everyone_gets_its_own_answers(runs, limit):
    cases = [asks(rows, steps, seed) for seed, (rows, steps) in enumerate(runs)]
    model = Toy()
    told = Table(model, limit).run(*[run for run, _ in cases])
    for answers, (_, expected) in zip(told, cases):
        assert len(answers) == len(expected)
        assert all(torch.equal(one, other) for one, other in zip(answers, expected))
    assert sum(model.sizes) == sum(rows * steps for rows, steps in runs)
    assert max(model.sizes, default=0) <= limit


def test_runs_of_equal_length_cost_the_calls_of_one():
    model = Toy()
    Table(model).run(*[asks(2, 7, seed)[0] for seed in range(5)])
    assert model.sizes == [10] * 7


def test_a_run_that_leaves_makes_the_calls_smaller_and_nothing_else():
    model = Toy()
    Table(model).run(asks(2, 3, 0)[0], asks(1, 6, 1)[0])
    assert model.sizes == [3] * 3 + [1] * 3


def test_what_does_not_go_together_is_asked_apart():
    def other(ask: Callable[..., Tensor]) -> Tensor:
        return ask(torch.ones(1, 3), torch.ones(1), labels(5, key="other"))

    def larger(ask: Callable[..., Tensor]) -> Tensor:
        return ask(torch.ones(1, 4), torch.ones(1), labels(5))

    model = Toy()
    first, second, third = Table(model).run(asks(1, 1, 0)[0], other, larger)
    assert (first[0].shape, second.shape, third.shape) == ((1, 3), (1, 3), (1, 4))
    assert model.sizes == [1, 1, 1]


def test_only_whoever_asks_for_the_impossible_gets_the_error():
    def refuse(u: Tensor) -> None:
        if (u == 13).any():
            raise ValueError("unlucky")

    def unlucky(ask: Callable[..., Tensor]) -> Tensor:
        return ask(torch.full((1, 3), 13.0), torch.ones(1), labels(0))

    run, expected = asks(1, 3, 0)
    told, error = Table(Toy(meet=refuse)).run(run, unlucky)
    assert all(torch.equal(one, other) for one, other in zip(told, expected))
    assert isinstance(error, ValueError)


def test_a_call_that_does_not_fit_into_memory_is_cut():
    def full(u: Tensor) -> None:
        if len(u) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model = Toy(meet=full)
    cases = [asks(4, 2, seed) for seed in range(3)]
    told = Table(model).run(*[run for run, _ in cases])
    assert all(torch.equal(torch.stack(a), torch.stack(b)) for a, (_, b) in zip(told, cases))
    assert max(model.sizes) <= 3


# whatever a run does, it ends


def silent(ask: Callable[..., Tensor]) -> str:
    time.sleep(0.3)
    return "never asked"


def nested(ask: Callable[..., Tensor]) -> list[Tensor]:
    """Asks from threads of its own, several at once."""
    with ThreadPoolExecutor(3) as pool:
        ones = [pool.submit(ask, torch.full((1, 3), float(i)), torch.ones(1), labels(i)) for i in range(9)]
        return [one.result() for one in ones]


def failing(ask: Callable[..., Tensor]) -> None:
    ask(torch.ones(1, 3), torch.ones(1), labels(0))
    raise RuntimeError("boom")


def test_runs_of_every_kind_side_by_side():
    run, expected = asks(2, 5, 0)
    told = Table(Toy()).run(silent, run, nested, failing)
    assert told[0] == "never asked"
    assert all(torch.equal(one, other) for one, other in zip(told[1], expected))
    assert [float(row[0, 0]) for row in told[2]] == [2.0 * i for i in range(9)]
    assert str(told[3]) == "boom"


def test_a_straggler_is_waited_for_once():
    def straggler(ask: Callable[..., Tensor]) -> float:
        time.sleep(2.0)
        return time.monotonic()

    def quick(ask: Callable[..., Tensor]) -> float:
        for _ in range(40):
            ask(torch.ones(1, 3), torch.ones(1), labels(1))
        return time.monotonic()

    late, early = Table(Toy(), straggler_seconds=0.1).run(straggler, quick)
    assert early < late, "40 calls did not wait for 0.1 s each"


def test_whoever_left_may_still_ask():
    table = Table(Toy())

    def late(ask: Callable[..., Tensor]) -> Tensor:
        table.registrations[0].close()
        return ask(torch.ones(1, 3), torch.ones(1), labels(1))

    assert torch.equal(table.run(late)[0], torch.full((1, 3), 2.0))


def test_stop_reaches_those_who_wait_and_those_who_come():
    def interrupted(u: Tensor) -> None:
        table.rendezvous.stop()

    table = Table(Toy(meet=interrupted))
    told = table.run(asks(1, 3, 0)[0], asks(1, 3, 1)[0])
    assert [type(one) for one in told] == [KeyboardInterrupt] * 2


def test_a_gradient_is_the_own_affair_of_who_wants_it():
    def slope(ask: Callable[..., Tensor]) -> Tensor:
        u = torch.ones(1, 3, requires_grad=True)
        ask(u, torch.full((1,), 7.0), labels(0)).sum().backward()
        assert u.grad is not None
        return u.grad

    (grad,) = Table(Toy()).run(slope)
    assert torch.equal(grad, torch.full((1, 3), 7.0))


def test_the_time_of_a_call_is_shared_by_samples():
    def slow(u: Tensor) -> None:
        time.sleep(0.02)

    table = Table(Toy(meet=slow))
    table.run(asks(3, 5, 0)[0], asks(1, 5, 1)[0])
    large, small = (client.seconds for client in table.clients)
    assert large == pytest.approx(3 * small)
    assert large + small > 5 * 0.02


# conditions


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_merged_conditions_come_apart_again(sizes):
    conditions = [
        Condition({"a": torch.randn(n, 2), "b": torch.arange(n)}, None, [f"{n}/{i}" for i in range(n)]) for n in sizes
    ]
    whole, start = merge(conditions), 0
    for condition in conditions:
        part = rows_of(whole, start, start + len(condition.captions))
        start += len(condition.captions)
        assert part.captions == condition.captions
        assert part.positive.keys() == condition.positive.keys()
        assert all(torch.equal(part.positive[key], value) for key, value in condition.positive.items())


def test_conditions_that_cannot_be_merged_have_no_kind():
    u, t = torch.ones(2, 3), torch.ones(2)
    assert merge_key(u, t, labels(1, 2)) == merge_key(torch.ones(5, 3), torch.ones(5), labels(*range(5)))
    assert merge_key(u, t, labels(1)) is None, "one row for two samples"
    assert merge_key(u, t, labels(1, 2)) != merge_key(u.double(), t, labels(1, 2))
    guided = Condition(labels(1, 2).positive, labels(3, 4).positive, ["1", "2"])
    assert merge_key(u, t, guided) == merge_key(u, t, labels(1, 2)), "the other side is for guidance"


# the limit


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        (lambda size: 1.0 * size, 1024, START),  # nothing is gained by more
        (lambda size: 1.0 + 1e-9 * size, 1024, 1024),  # a call costs the same whatever is in it
        (lambda size: 1.0 + 1e-9 * size, 64, 64),
        (lambda size: 32.0 if size <= 32 else 2.0 * size, 1024, 32),  # a cache overflows
    ],
)
def test_the_limit_is_where_a_sample_is_cheapest(seconds, most, expected):
    limit = BatchLimit(most=most)
    for _ in range(100):
        limit.record(limit.value, seconds(limit.value))
    assert limit.value == expected


def test_a_given_limit_stays():
    limit = BatchLimit(5)
    for _ in range(10):
        limit.record(5, 1e-9)
    assert limit.value == 5
    limit.shrink(2)
    assert limit.value == 2


def test_small_calls_say_nothing_of_the_limit():
    limit = BatchLimit()
    for _ in range(100):
        limit.record(START // 2, 1.0)
    assert limit.value == START
