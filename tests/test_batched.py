"""Cells that share a model: one call for many, and each as if it were alone."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffexp.discovery import Catalog, discover
from diffexp.models.base import Condition
from diffexp.outputs import RunFolder
from diffexp.sweep.batcher import Batcher, Seat
from diffexp.sweep.failures import FAILED_HERE
from diffexp.sweep.limit import START, BatchLimit
from diffexp.sweep.merge import kind_of, merge, part_of
from diffexp.sweep.progress import Progress
from tests.checkpoints import save_unet, tiny_digits_unet
from tests.pipeline_runs import COMMON
from tests.runs import (
    PICTURES,
    PLUGINS,
    POINTS,
    files,
    images,
    metrics,
    network,
    raise_at,
    record,
    same_but_for_rounding,
)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that counts of calls do not depend on how busy the machine is."""
    monkeypatch.setattr("diffexp.sweep.batcher.STARTING_SECONDS", 20.0)
    monkeypatch.setattr("diffexp.sweep.batcher.PATIENCE_SECONDS", 5.0)


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
    """A batcher with its serving thread, and runs as functions that get ``ask``."""

    def __init__(self, model: Any, limit: int = 64) -> None:
        self.batcher = Batcher(BatchLimit(limit))
        self.batcher.model = model

    def run(self, *runs: Callable[..., Any]) -> list[Any]:
        """The results of the runs, or the errors that they raise."""
        seats = [Seat(number, 1) for number in range(len(runs))]
        for seat in seats:
            self.batcher.sit(seat)

        def live(run: Callable[..., Any], seat: Seat) -> Any:
            try:
                return run(lambda u, t, condition: self.batcher.ask(seat, u, t, condition))
            except BaseException as error:
                return error
            finally:
                self.batcher.leave(seat)

        self.seats = seats
        with ThreadPoolExecutor(len(runs)) as pool:
            results = [pool.submit(live, run, seat) for run, seat in zip(runs, seats)]
            deadline = time.monotonic() + 60
            while not all(result.done() for result in results):
                self.batcher.serve(0.05)
                if time.monotonic() > deadline:
                    self.batcher.stop()
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


def test_whoever_left_may_still_ask():
    table = Table(Toy())

    def late(ask: Callable[..., Tensor]) -> Tensor:
        table.batcher.leave(table.seats[0])
        return ask(torch.ones(1, 3), torch.ones(1), labels(1))

    assert torch.equal(table.run(late)[0], torch.full((1, 3), 2.0))


def test_stop_reaches_those_who_wait_and_those_who_come():
    table = Table(Toy())

    def interrupted(u: Tensor) -> None:
        table.batcher.stop()

    table.batcher.model = Toy(meet=interrupted)  # pyright: ignore[reportAttributeAccessIssue]
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
    large, small = (seat.seconds for seat in table.seats)
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
        part = part_of(whole, start, start + len(condition.captions))
        start += len(condition.captions)
        assert part.captions == condition.captions
        assert part.positive.keys() == condition.positive.keys()
        assert all(torch.equal(part.positive[key], value) for key, value in condition.positive.items())


def test_conditions_that_cannot_be_merged_have_no_kind():
    u, t = torch.ones(2, 3), torch.ones(2)
    assert kind_of(u, t, labels(1, 2)) == kind_of(torch.ones(5, 3), torch.ones(5), labels(*range(5)))
    assert kind_of(u, t, labels(1)) is None, "one row for two samples"
    assert kind_of(u, t, labels(1, 2)) != kind_of(u.double(), t, labels(1, 2))
    guided = Condition(labels(1, 2).positive, labels(3, 4).positive, ["1", "2"])
    assert kind_of(u, t, guided) == kind_of(u, t, labels(1, 2)), "the other side is for guidance"


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


# whole cells


PLUGIN = '''
"""What a batched sweep must put up with."""

import threading

import torch

from diffexp import loop, metric
from diffexp.models.base import Request


@loop
def denoise_in_a_thread(batch):
    from diffexp.loops.denoise import denoise

    told = []
    thread = threading.Thread(target=lambda: told.append(denoise(batch)))
    thread.start()
    thread.join()
    return told[0]


@loop
def silent(batch):
    return batch.noise()


@loop
def broken(batch, *, after: int = 2):
    x = batch.noise()
    for row in batch.sampler.rows[:after]:
        x = batch.network(x, row.level)
    raise ZeroDivisionError("broken")


@loop(alone=True)
def alone(batch):
    assert threading.current_thread() is threading.main_thread()
    return batch.noise()


@metric
class Asking:
    """Calls the model after everything is drawn."""

    def applies(self, model):
        return None

    def update(self, samples, images):
        self.samples = samples

    def compute(self, run):
        t = torch.full((len(self.samples),), 500.0)
        return {"asking": run.model.predict(self.samples, t, run.model.conditions(Request(), range(len(t)))).mean()}

'''


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """The built-in options, the plugins of tests/runs.py, and the ones above."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "careless.py").write_text(PLUGINS)
    (folder / "busy.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFEXP_PLUGINS", str(folder))
        yield discover()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """All samples of all runs from here on, by the run's folder, before they are rounded to 8 bits."""
    found: dict[str, Tensor] = {}
    save = RunFolder.save_samples

    def noted(self: RunFolder, indices: Sequence[int], samples: Tensor) -> None:
        key = str(self.folder)
        found[key] = torch.cat([found[key], samples]) if key in found else samples.clone()
        save(self, indices, samples)

    monkeypatch.setattr(RunFolder, "save_samples", noted)
    return found


def psnr(one: Tensor, other: Tensor) -> float:
    error = (one.double() - other.double()).square().mean()
    return float(-10 * torch.log10(error.clamp_min(1e-30)))


def test_the_same_pictures_as_alone(run, together, drawn, tmp_path):
    net = save_unet(tmp_path / "net", tiny_digits_unet())
    model = ("model=mnist", f"model.weights={net}", "num_samples=5", "batch_size=3", "dtype=float32")
    cells = [
        (*model, "scheduler=ddim", "steps=6"),
        (*model, "scheduler=ddpm", "steps=4", "guidance_scale=2.5"),
        (*model, "scheduler=euler", "steps=5", "label=3", "num_samples=7"),
        (*model, "scheduler=heun", "steps=3", "seed=1"),
        (*model, "scheduler=curved", "steps=4"),
        (*model, "scheduler=ddim", "steps=4", "grid=karras", "prompt=[one,two]", "negative_prompt=seven"),
    ]
    folders = together(*cells, batch=8)
    for words, folder in zip(cells, folders):
        alone = run(*words).folder
        assert psnr(drawn[str(folder)], drawn[str(alone)]) > 80
        assert record(folder)["status"] == "done"
        assert record(folder)["plan_sha256"] == record(alone)["plan_sha256"]
        assert files(folder) == files(alone) | {"diffexp.log"}
        assert metrics(folder)["nfe"] == metrics(alone)["nfe"]
        assert images(folder).keys() == images(alone).keys()


@pytest.mark.parametrize("family", ["sd15", "sdxl", "kandinsky22"])
def test_text_to_image_cells_share_calls_too(run, together, drawn, tiny, monkeypatch, family):
    from diffexp.models.latent import LatentModel

    model = (*COMMON, f"model.id={tiny(family)}", "steps=3", "metric=none")
    cells = [
        (*model, "prompt='a cat'", "guidance_scale=3"),
        (*model, "prompt='a house in the snow'", "guidance_scale=1", "scheduler=euler"),
        (*model, "prompt=[cat,dog]", "negative_prompt=tree", "guidance_scale=2", "loop=pipeline"),
    ]
    predict, sizes = LatentModel.predict, list[int]()

    def noted(self: LatentModel, u: Tensor, *rest: Any) -> Tensor:
        sizes.append(len(u))
        return predict(self, u, *rest)

    monkeypatch.setattr(LatentModel, "predict", noted)
    folders = together(*cells, batch=8)
    assert sizes[:3] == [2 * 2 + 2] * 3
    for words, folder in zip(cells, folders):
        assert psnr(drawn[str(folder)], drawn[str(run(*words).folder)]) > 80


def test_many_cells_cost_the_calls_of_the_longest(together, monkeypatch):
    sizes: list[int] = []
    network(monkeypatch, lambda number, size: sizes.append(size))
    cells = [(*PICTURES, "batch_size=7", f"seed={seed}", f"steps={steps}") for seed, steps in enumerate((5, 9, 9, 9))]
    together(*cells, batch=28)
    assert len(sizes) == 9
    assert sizes[0] == 28
    assert sizes[-1] == 21


def test_one_failing_cell_takes_no_other_along(together, caplog):
    good = (*PICTURES, "steps=6")
    bad = (*PICTURES, "loop=broken")
    impossible = (*POINTS, "steps=1001")
    first, broken, _, last = together(good, bad, impossible, (*good, "seed=1"))
    assert [record(folder)["status"] for folder in (first, last)] == ["done", "done"]
    assert len(images(first)) == len(images(last)) == 7
    assert record(broken)["error"] == "ZeroDivisionError: broken"
    told = {Path(failure.folder).name: failure for failure in FAILED_HERE}
    assert set(told) == {"1", "2"}
    assert told["1"].message == "ZeroDivisionError: broken"
    assert not told["1"].input_error
    assert told["2"].input_error
    assert "ZeroDivisionError: broken" in (broken / "diffexp.log").read_text()
    assert "ZeroDivisionError" not in (first / "diffexp.log").read_text()


def test_an_error_in_the_model_is_its_cells_own(together, monkeypatch):
    def refuse(number: int, size: int) -> None:
        if size != 7:
            raise ValueError("seven only")

    network(monkeypatch, refuse)
    words = (*PICTURES, "batch_size=7")
    good, bad = together(words, (*words, "num_samples=3"))
    assert record(good)["status"] == "done"
    assert record(bad)["error"] == "ValueError: seven only"


def test_each_cell_has_its_own_log(together, caplog):
    caplog.set_level("INFO")
    folders = together(*[(*PICTURES, f"steps={steps}") for steps in (3, 4, 5)])
    for folder, steps in zip(folders, (3, 4, 5)):
        lines = (folder / "diffexp.log").read_text()
        assert lines.count("steps · 7 samples") == 1
        assert f"· {steps} steps ·" in lines
        assert f"nfe={steps} " in lines


def test_loops_and_metrics_of_every_kind(together, run):
    words = (*PICTURES, "steps=4")
    kinds = ["loop=denoise_in_a_thread", "loop=silent", "loop=alone", "loop=denoise"]
    folders = together(*[(*words, kind) for kind in kinds], (*words, "metric=asking", "seed=2"))
    assert [record(folder)["status"] for folder in folders] == ["done"] * 5
    nested, _, _, plain, asking = (images(folder) for folder in folders)
    assert all(same_but_for_rounding(nested[i], plain[i]) for i in range(7))
    assert "asking" in metrics(folders[4])
    assert metrics(folders[4]) == metrics(run(*words, "metric=asking", "seed=2").folder)
    assert len(asking) == 7


def test_the_same_samples_are_drawn_once(together, monkeypatch):
    sizes: list[int] = []
    network(monkeypatch, lambda number, size: sizes.append(size))
    words = (*PICTURES, "batch_size=7", "model.prediction=epsilon")
    # At eta=0 DDIM has no noise to scale, whatever else it is called.
    folders = together((*words, "scheduler=ddim"), (*words, "scheduler=ddim", "name=again"), (*words, "scheduler=ddpm"))
    assert sum(sizes) == 7 * 5 * 2
    first, second, other = folders
    assert all(torch.equal(one, images(second)[index]) for index, one in images(first).items())
    twins = [record(folder).get("same_as") for folder in folders]
    assert twins in ([None, "0", None], ["1", None, None])
    assert metrics(first) == metrics(second)
    assert files(first) == files(second)
    assert (record(second)["status"], record(second)["nfe"]) == ("done", 5)
    assert not torch.equal(images(other)[0], images(first)[0])


def test_a_twin_of_a_failed_cell_draws_for_itself(together, monkeypatch):
    network(monkeypatch, raise_at(3, ValueError("once")))
    words = (*PICTURES, "batch_size=7")
    folders = together(words, (*words, "name=again"))
    assert sorted(record(folder)["status"] for folder in folders) == ["done", "failed"]


def test_an_interrupt_ends_all_cells_with_what_they_have(together, tmp_path, monkeypatch):
    # Three cells of 3 + 3 + 1 samples in 5 steps each, asked together: the second batch is interrupted.
    network(monkeypatch, raise_at(8, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        together(*[(*PICTURES, f"seed={seed}") for seed in range(3)], batch=9)
    for number in range(3):
        folder = tmp_path / "sweep" / str(number)
        assert (record(folder)["status"], record(folder)["error"]) == ("interrupted", None)
        assert list(images(folder)) == [0, 1, 2]
        assert metrics(folder)["nfe"] == 5


def test_a_cell_that_interrupts_itself_ends_the_sweep(together, monkeypatch):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffexp.experiment.facts_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        together(PICTURES, (*PICTURES, "seed=1"))


def test_every_model_is_loaded_once(together, monkeypatch):
    loaded: list[str] = []
    build = Catalog.build

    def noted(self: Catalog, kind: str, node: Any) -> Any:
        if kind == "model":
            loaded.append(node["name"])
        return build(self, kind, node)

    monkeypatch.setattr(Catalog, "build", noted)
    together((*PICTURES,), ("model=gaussian", "steps=3"), (*PICTURES, "seed=1"), (*PICTURES, "loop=alone"))
    assert sorted(loaded) == ["gaussian", "mixture"]


def test_a_model_that_does_not_load_fails_its_own_cells(together, tmp_path):
    lost = ("model=mnist", f"model.weights={tmp_path}/lost")
    folders = together(lost, PICTURES, (*lost, "seed=1"))
    assert [record(folder)["status"] for folder in folders] == ["failed", "done", "failed"]
    assert len({record(folder)["error"] for folder in (folders[0], folders[2])}) == 1


def test_the_seconds_of_cells_add_up_to_the_time_it_took(together, monkeypatch):
    def slow(number: int, size: int) -> None:
        time.sleep(0.01)

    network(monkeypatch, slow)
    began = time.perf_counter()
    cells = [(*PICTURES, "steps=10", "batch_size=7", f"seed={seed}") for seed in range(4)]
    folders = together(*cells, batch=28)
    took = time.perf_counter() - began
    seconds = [record(folder)["sampling_seconds"] for folder in folders]
    assert 10 * 0.01 <= sum(seconds) <= took
    for folder in folders:
        assert record(folder)["model_seconds"] <= record(folder)["sampling_seconds"]


# progress


def test_progress_counts_cells_by_their_work():
    progress = Progress({0: 10, 1: 30, 2: 60})
    first, _ = progress.start(0), progress.start(1)
    first.total = 4
    first.update(2)
    assert progress.fraction() == pytest.approx(0.05)
    progress.finished(8)
    progress.end(0, "done")
    progress.end(1, "failed")
    assert progress.fraction() == pytest.approx(0.4)
    text = progress.text()
    assert text.startswith("1 of 3 cells done, 1 failed, 0 running, 1 waiting, ")
    assert text.endswith(" left")
    assert progress.counted() == "2/3"


def test_nothing_is_drawn_where_nobody_looks(capsys):
    progress = Progress({0: 1})
    progress.show()
    progress.close()
    assert capsys.readouterr() == ("", "")
