"""One run that several workers draw: the same samples, the same metrics, nothing drawn twice."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffexp.catalog.discover import Catalog
from diffexp.errors import InputError
from diffexp.experiment.context import OwnerContext, RunContext
from diffexp.experiment.lock import FolderInUse, lock
from diffexp.experiment.parts import Division, Parts, Worker, read_division
from diffexp.experiment.run import RunResult, run_experiment
from diffexp.experiment.shared import Owner, PartDrawing, help_run
from diffexp.experiment.tally import Tally
from diffexp.files import write_json
from tests.runs import (
    PICTURES,
    POINTS,
    files,
    frames,
    images,
    metrics,
    network,
    raise_at,
    record,
    same_but_for_rounding,
    told,
)

MANY = (*PICTURES, "num_samples=23", "snapshot_every=1")
"""Eight batches, the last of two samples."""
RAW = ("model=gaussian", "model.shape=[1,4,4]", "steps=5", "num_samples=40", "batch_size=4")


@pytest.fixture
def own(catalog: Catalog, compose: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., RunResult]:
    """Run a command line in the folder ``shared`` as its owner."""

    def run(*words: str, resumed: bool = False, **changes: Any) -> RunResult:
        config = compose(*words) | changes
        return run_experiment(config, tmp_path / "shared", catalog, context=OwnerContext("owner", resumed=resumed))

    return run


@pytest.fixture
def helper(catalog: Catalog, compose: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., threading.Thread]:
    """Start a thread that helps in the folder ``shared`` until its run is over."""

    def work(words: tuple[str, ...], drawn: list[int]) -> None:
        context, deadline = RunContext(), time.monotonic() + 60
        context.job = "helper"
        while record_or_nothing(tmp_path / "shared").get("status") != "done" and time.monotonic() < deadline:
            drawn.append(help_run(compose(*words), tmp_path / "shared", catalog, context))
            time.sleep(0.02)

    def start(*words: str, drawn: list[int]) -> threading.Thread:
        thread = threading.Thread(target=work, args=(words, drawn), daemon=True)
        thread.start()
        return thread

    return start


def record_or_nothing(folder: Path) -> dict[str, Any]:
    return record(folder) if (folder / "run.json").exists() else {}


def slowly(sizes: list[int]) -> Callable[[int, int], None]:
    """Note the sizes of calls, each of which takes a while, so that there is something left to share."""

    def meet(number: int, size: int) -> None:
        sizes.append(size)
        time.sleep(0.02)

    return meet


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}


@pytest.mark.parametrize(
    "words",
    [
        MANY,
        (*MANY, "samples=tar"),
        (*MANY, "samples=safetensors"),
        (*POINTS, "num_samples=23", "metric=[cost,wasserstein]"),
    ],
    ids=["png", "tar", "safetensors", "points"],
)
def test_a_run_by_several_workers_is_that_of_one(run, own, helper, monkeypatch, words):
    alone = run(*words).folder
    sizes, drawn = list[int](), list[int]()
    network(monkeypatch, slowly(sizes))
    helpers = [helper(*words, drawn=drawn) for _ in range(2)]
    folder = own(*words).folder
    for thread in helpers:
        thread.join()
    assert bytes_of(folder) == bytes_of(alone), "images and points are equal to the last bit"
    assert sum(sizes) == 23 * 5, "nothing is drawn twice"
    assert 0 < sum(drawn) < 23
    assert files(folder) == files(alone)
    assert not (folder / ".parts").exists()
    assert frames(folder) == frames(alone)
    for name in ("grid.png", "trajectory.png", "plan.csv"):
        assert (folder / name).read_bytes() == (alone / name).read_bytes()
    stated, expected = record(folder), record(alone)
    assert {key: stated[key] for key in ("status", "nfe", "forward_passes", "drawn", "image_shape")} == {
        key: expected[key] for key in ("status", "nfe", "forward_passes", "drawn", "image_shape")
    }
    workers = {worker["job"]: worker for worker in stated["workers"]}
    assert {job: worker["samples"] for job, worker in workers.items()} == {
        "owner": 23 - sum(drawn),
        "helper": sum(drawn),
    }
    assert sum(worker["seconds"] for worker in stated["workers"]) == pytest.approx(stated["sampling_seconds"])
    assert metrics(folder)["seconds_per_image"] == pytest.approx(stated["sampling_seconds"] / 23)
    varying = {"seconds_per_image", "images_per_second", "scheduler_us_per_step", "peak_memory_mb"}
    assert {k: v for k, v in metrics(folder).items() if k not in varying} == {
        k: v for k, v in metrics(alone).items() if k not in varying
    }


def test_metrics_that_read_more_than_images_are_those_of_one_process(run, own, helper, monkeypatch):
    words = (*RAW, "metric=[wasserstein,trajectory_error,psnr]")
    alone = run(*words).folder
    network(monkeypatch, slowly([]))
    thread = helper(*words, drawn=(drawn := list[int]()))
    folder = own(*words).folder
    thread.join()
    assert 0 < sum(drawn) < 40
    assert metrics(folder) == pytest.approx(metrics(alone), rel=1e-9)
    assert any(name.endswith("/low") for name in metrics(folder))
    assert files(folder) == files(alone), "nothing of the parts is left, and none of the raw samples"


def test_fid_and_kid_are_those_of_the_whole(run, own, monkeypatch, catalog, compose):
    """The owner draws one part, a helper all others."""
    words = ("steps=2", "num_samples=24", "batch_size=4", "metric=[fid,kid]", "snapshot_every=0")
    alone = run(*words)
    draw = PartDrawing.draw

    def draw_one(self: PartDrawing, part: int) -> None:
        if self.drawing.monitor.tally.drawn and isinstance(self, Owner):
            raise KeyboardInterrupt
        draw(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(PartDrawing, "draw", draw_one)
        with pytest.raises(KeyboardInterrupt):
            own(*words)
    assert help_run(compose(*words), alone.folder.parent / "shared", catalog, RunContext()) == 20
    shared = own(*words, resumed=True)
    assert bytes_of(shared.folder) == bytes_of(alone.folder)
    assert {"fid/mnist_cnn/low", "kid/mnist_cnn/high"} < shared.metrics.keys()
    assert shared.metrics == pytest.approx(alone.metrics, rel=1e-9)


def test_a_tracker_sees_one_run(own, stopped, catalog, compose, caplog):
    """A helper starts none, not even one that fails."""
    words = (*MANY, "tracker=lost")
    caplog.clear()
    assert help_run(compose(*words), stopped, catalog, RunContext()) == 14
    assert told(caplog) == []
    own(*words, resumed=True)
    assert told(caplog) == ["tracker Lost failed in start, the run goes on without it: OSError: no space left"]


def test_a_sampler_that_couples_samples_is_shared_sample_by_sample(run, own, helper, monkeypatch, caplog):
    words = (*PICTURES, "scheduler=blended")
    alone = run(*words).folder
    sizes, drawn = list[int](), list[int]()
    network(monkeypatch, slowly(sizes))
    thread = helper(*words, drawn=drawn)
    folder = own(*words).folder
    thread.join()
    assert set(sizes) == {1} and 0 < sum(drawn) < 7
    assert bytes_of(folder) == bytes_of(alone)
    message = "blended chooses its steps for a whole batch: one sample at a time is drawn"
    assert told(caplog).count(message) == 2, "of both runs, not of the helper"


# endings


@pytest.fixture
def stopped(own, tmp_path, monkeypatch) -> Path:
    """A divided run whose owner was interrupted in its fourth batch of eight."""
    with monkeypatch.context() as patch:
        network(patch, raise_at(18, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            own(*MANY)
    return tmp_path / "shared"


def test_an_interrupted_owner_leaves_what_is_finished(stopped, caplog):
    assert record(stopped)["status"] == "interrupted"
    assert (record(stopped)["drawn"], record(stopped)["workers"][0]["samples"]) == (9, 9)
    assert list(images(stopped)) == list(range(9))
    assert metrics(stopped)["nfe"] == 5
    assert (stopped / "trajectory.png").exists()


def test_an_owner_goes_on_in_its_folder_and_helpers_did_not_wait_for_it(
    run, own, stopped, catalog, compose, monkeypatch
):
    """Also where it is continued by a process that shares nothing."""
    sizes = list[int]()
    network(monkeypatch, slowly(sizes))
    network(monkeypatch, raise_at(11, KeyboardInterrupt()))
    context = RunContext()
    context.job = "helper"
    with pytest.raises(KeyboardInterrupt):  # the helper is stopped too, after two batches
        help_run(compose(*MANY), stopped, catalog, context)
    kept = bytes_of(stopped)
    assert len(kept) in (14, 15)
    result = run_experiment(compose(*MANY), stopped, catalog, context=resuming())
    assert sum(sizes) == (23 - 9) * 5, "nothing is drawn twice"
    assert (result.status, record(stopped)["drawn"]) == ("done", 23)
    assert sum(worker["samples"] for worker in record(stopped)["workers"]) == 23
    alone = run(*MANY).folder
    assert bytes_of(stopped) == bytes_of(alone)
    assert files(stopped) == files(alone)


def resuming() -> RunContext:
    context = RunContext()
    context.resumed = True
    return context


def test_the_part_of_a_dead_worker_is_drawn_to_its_end(run, own, stopped, monkeypatch):
    """It was killed while it wrote the second of three images: no record, no lock, a partial file."""
    alone = run(*MANY).folder
    for index in (9, 10):
        name = f"samples/{index:06d}.png"
        (stopped / name).write_bytes((alone / name).read_bytes())
    (stopped / "samples" / ".000011-abcdefgh.png").write_bytes(b"half")
    (stopped / "samples" / "000012.png").write_bytes(b"torn")
    sizes = list[int]()
    network(monkeypatch, lambda number, size: sizes.append(size))
    own(*MANY, resumed=True)
    assert sum(sizes) == 12 * 5
    assert files(stopped) == files(alone)
    assert all(same_but_for_rounding(image, images(alone)[index]) for index, image in images(stopped).items())


def test_samples_that_are_gone_are_drawn_again(run, own, monkeypatch):
    monkeypatch.setattr("diffexp.experiment.shared.PATIENCE_SECONDS", 0.1)
    write, lost = Parts.write, list[Path]()

    def lossy(self: Parts, part: int, shares: Any, *, done: bool) -> None:
        write(self, part, shares, done=done)
        path = self._run / "samples" / "000004.png"
        if done and part == 1 and not lost:
            lost.append(path)
            path.unlink()

    monkeypatch.setattr(Parts, "write", lossy)
    folder = own(*MANY).folder
    assert lost and files(folder) == files(run(*MANY).folder)
    assert record(folder)["drawn"] == 24


def test_a_run_begun_by_one_process_is_finished_by_several(run, own, helper, tmp_path, monkeypatch, catalog, compose):
    with monkeypatch.context() as patch:
        network(patch, raise_at(18, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run_experiment(compose(*MANY), tmp_path / "shared", catalog)
    seconds = record(tmp_path / "shared")["sampling_seconds"]
    sizes = list[int]()
    network(monkeypatch, slowly(sizes))
    thread = helper(*MANY, drawn=[])
    folder = own(*MANY, resumed=True).folder
    thread.join()
    assert sum(sizes) == (23 - 9) * 5
    assert (record(folder)["drawn"], record(folder)["nfe"]) == (23, 5)
    assert record(folder)["sampling_seconds"] > seconds
    assert sum(worker["samples"] for worker in record(folder)["workers"]) == 23 - 9
    assert bytes_of(folder) == bytes_of(run(*MANY).folder)


# what does not fit together


def test_a_helper_that_would_draw_other_samples_draws_nothing(stopped, catalog, compose, monkeypatch):
    network(monkeypatch, raise_at(1, AssertionError("nothing is drawn")))
    for words, difference in [
        (("seed=1",), "seed was 0 and is now 1"),
        (("scheduler=euler",), "scheduler.name was ddim and is now euler"),
    ]:
        with pytest.raises(InputError, match=difference):
            help_run(compose(*MANY, *words), stopped, catalog, RunContext())
    write_json(stopped / "run.json", record(stopped) | {"device": "cuda"})
    with pytest.raises(InputError, match="is drawn on cuda; this process has cpu"):
        help_run(compose(*MANY), stopped, catalog, RunContext())
    assert len(images(stopped)) == 9


def test_a_folder_in_which_others_draw_is_not_begun_anew(own, stopped, catalog, compose):
    before = files(stopped)
    with lock(stopped / ".parts" / "000012"), pytest.raises(FolderInUse, match="is still running in .*000012"):
        own(*MANY)
    assert files(stopped) == before
    assert own(*MANY).status == "done", "once they have ended, it is"
    assert record(stopped)["drawn"] == 23


def test_a_helper_of_a_run_that_is_over_draws_nothing(own, catalog, compose):
    folder = own(*MANY).folder
    assert help_run(compose(*MANY), folder, catalog, RunContext()) == 0
    parts = Parts(folder, Division.of(23, 3, False, Tally()), Worker("here", 1, "cpu", None))
    assert list(parts.claimed()) == []
    assert not (folder / ".parts").exists(), "what its locks left is removed"


# how a run is divided


@pytest.mark.parametrize(
    ("samples", "size", "part", "count"),
    [(1, 64, 64, 1), (64, 64, 64, 1), (65, 64, 64, 2), (2000, 64, 64, 32), (50_000, 64, 768, 66), (9, 5000, 5000, 1)],
)
def test_parts_are_whole_batches(samples, size, part, count):
    division = Division.of(samples, size, False, Tally())
    assert (division.part_size, division.count) == (part, count)
    assert part % size == 0
    assert [index for number in range(count) for index in division.indices(number)] == list(range(samples))


def test_a_part_has_one_worker(tmp_path):
    one, other = (Parts(tmp_path, Division.of(20, 5, True, Tally()), Worker("here", n, "cpu", None)) for n in (1, 2))
    one.offer()
    assert (read_division(tmp_path), read_division(tmp_path / "elsewhere")) == (one.division, None)
    other = Parts(tmp_path, one.division, other.worker)
    mine, theirs = one.claimed(), other.claimed()
    assert [next(mine), next(theirs)] == [0, 1]
    one.write(0, [], done=True)
    assert [next(mine), next(theirs)] == [2, 3]
    mine.close()
    assert next(theirs) == 1, "what was claimed and not finished is open again"
