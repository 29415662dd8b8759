"""Workers that a signal asks to end: the batches in work are finished, and no further one is begun."""

import signal
import time

import pytest

from diffexp.components.models.exact import ExactModel
from diffexp.sweeps.ending import Ending, end_by_signals
from tests.runs import PICTURES, network, record

CELLS = [(*PICTURES, f"seed={seed}", "steps=4", "num_samples=6", "batch_size=2", "tracker=none") for seed in range(2)]


def drawn(folders) -> list[int]:
    return [len(list((folder / "samples").glob("*.png"))) for folder in folders]


def test_batches_in_work_are_finished_and_no_further_one_is_begun(together, monkeypatch, tmp_path):
    """Asked at the second call, when both cells or, on a busy machine, one of them has begun its first batch."""
    ending, predict, visited, at_request = Ending(), ExactModel.predict, [], []

    def watched(self, u, t, *rest):
        visited.append(float(t.flatten()[0]))
        if len(visited) == 2:
            at_request.extend(visited)
            ending.request(60.0)
        return predict(self, u, t, *rest)

    monkeypatch.setattr(ExactModel, "predict", watched)
    with pytest.raises(KeyboardInterrupt):
        together(*CELLS, ending=ending)
    folders = [tmp_path / "sweep" / str(i) for i in range(2)]
    begun = visited.count(max(visited))  # a batch begins at the highest noise
    # One may have been let in before the request, and come to its first call after it.
    assert at_request.count(max(visited)) <= begun <= 2 and len(visited) == 4 * begun
    assert sorted(drawn(folders), reverse=True) == [2, 2 * (begun - 1)]
    assert [record(folder)["status"] for folder in folders] == ["interrupted"] * 2
    monkeypatch.undo()
    together(*CELLS, resumed=True)
    assert drawn(folders) == [6, 6]
    assert [record(folder)["status"] for folder in folders] == ["done"] * 2


def test_a_batch_that_takes_too_long_is_given_up(together, monkeypatch, tmp_path):
    ending, endured = Ending(), []

    def meet(number: int, size: int) -> None:
        if number == 2:
            ending.request(0.2)
            time.sleep(60)
            endured.append(number)

    network(monkeypatch, meet)
    with pytest.raises(KeyboardInterrupt):
        together(*CELLS, ending=ending)
    assert not endured
    folders = [tmp_path / "sweep" / str(i) for i in range(2)]
    assert drawn(folders) == [0, 0]
    assert [record(folder)["status"] for folder in folders] == ["interrupted"] * 2


def test_without_a_batch_the_end_is_at_once():
    ending = Ending()
    ending.check()
    with pytest.raises(KeyboardInterrupt):
        ending.request(60.0)
    with pytest.raises(KeyboardInterrupt):
        ending.check()
    with pytest.raises(KeyboardInterrupt), ending.batch():
        pytest.fail("a batch was begun")


def test_a_batch_that_is_over_ends_the_process_where_it_is_checked():
    ending = Ending()
    with ending.batch():
        ending.request(60.0)
        ending.check()
    with pytest.raises(KeyboardInterrupt):
        ending.check()


@pytest.mark.parametrize(
    ("number", "waits"),
    [(signal.SIGTERM, True), (signal.SIGUSR2, True), (signal.SIGHUP, False), (signal.SIGINT, False)],
)
def test_clusters_give_a_worker_time_and_people_do_not(number, waits):
    numbers = (signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT)
    handlers = {other: signal.getsignal(other) for other in numbers}
    ending, finished = Ending(), list[bool]()

    def draw() -> None:
        with ending.batch():
            signal.raise_signal(number)
            if waits:
                signal.raise_signal(number)  # clusters send it twice
            finished.append(True)
        ending.check()

    try:
        end_by_signals(ending)
        with pytest.raises(KeyboardInterrupt):
            draw()
    finally:
        for other, handler in handlers.items():
            signal.signal(other, handler)
    assert finished == [True] * waits
