"""Files are written beside sampling: nothing is said to be there before it is, and no error is lost."""

import errno
import threading

import pytest

from diffexp.experiment.folder import RunFolder
from diffexp.experiment.sample_files import SampleFiles
from diffexp.experiment.writer import BackgroundWriter
from tests.runs import PICTURES, images, network, raise_at, record


def test_the_next_batch_waits_for_the_one_before():
    writer, first, seen = BackgroundWriter(), threading.Event(), list[str]()

    def slow() -> None:
        first.wait(10)
        seen.append("first")

    writer.write(slow)
    assert seen == [], "the caller goes on"
    threading.Timer(0.1, first.set).start()
    writer.write(lambda: seen.append("second"))
    assert seen[0] == "first"
    writer.wait()
    assert seen == ["first", "second"]
    writer.close()


@pytest.mark.parametrize("later", ["write", "wait"])
def test_an_error_is_raised_where_the_writer_is_used_next(later):
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = BackgroundWriter()
    writer.write(full)
    with pytest.raises(OSError, match="No space left"):
        writer.write(lambda: None) if later == "write" else writer.wait()
    writer.wait()
    writer.close()


def test_a_batch_is_drawn_while_the_last_is_written(run, monkeypatch, tmp_path):
    """The first batch is written only once the network has been called for the second: the run does not wait."""
    save, called = SampleFiles.save_samples, threading.Event()
    network(monkeypatch, lambda number, size: called.set() if number == 6 else None)

    def held(self, indices, samples):
        assert called.wait(10)
        assert record(tmp_path / "0")["drawn"] == indices[0], "run.json counts what is on disk"
        save(self, indices, samples)

    monkeypatch.setattr(SampleFiles, "save_samples", held)
    folder = run(*PICTURES).folder
    assert (record(folder)["status"], record(folder)["drawn"], [*images(folder)]) == ("done", 7, [*range(7)])


def test_an_interrupt_waits_for_what_is_being_written(run, monkeypatch, tmp_path):
    save, interrupted = SampleFiles.save_samples, threading.Event()
    wait = BackgroundWriter.wait

    def held(self, indices, samples):
        assert interrupted.wait(10)
        save(self, indices, samples)

    def released(self):
        if interrupt_raised.is_set():
            interrupted.set()
        wait(self)

    interrupt_raised = threading.Event()

    def meet(number: int, size: int) -> None:
        if number == 8:
            interrupt_raised.set()
            raise KeyboardInterrupt

    network(monkeypatch, meet)
    monkeypatch.setattr(SampleFiles, "save_samples", held)
    monkeypatch.setattr(BackgroundWriter, "wait", released)
    with pytest.raises(KeyboardInterrupt):
        run(*PICTURES)
    folder = tmp_path / "0"
    assert (record(folder)["status"], record(folder)["drawn"], [*images(folder)]) == ("interrupted", 3, [0, 1, 2])


@pytest.mark.parametrize("batch", [0, 3, 6])
def test_a_full_disk_fails_the_run_whichever_batch_it_meets(run, monkeypatch, tmp_path, batch):
    save = SampleFiles.save_samples

    def full(self, indices, samples):
        if indices[0] == batch:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, indices, samples)

    monkeypatch.setattr(SampleFiles, "save_samples", full)
    with pytest.raises(OSError, match="No space left") as failure:
        run(*PICTURES)
    folder = tmp_path / "0"
    assert failure.value.__notes__ == [f"make room, then go on with resume={folder}"]
    assert (record(folder)["status"], record(folder)["drawn"]) == ("failed", batch)
    assert [*images(folder)] == [*range(batch)], "nothing is written after the error"


def test_the_writer_is_done_before_a_failure_is_recorded(run, monkeypatch, tmp_path):
    """An error of the network while a batch is being written: the end of run.json comes last."""
    update, threads = RunFolder.update, list[str]()
    network(monkeypatch, raise_at(6, ValueError("broken")))

    def noted(self, **facts):
        in_main = threading.current_thread() is threading.main_thread()
        threads.append(str(facts.get("status")) if in_main else "writer")
        update(self, **facts)

    monkeypatch.setattr(RunFolder, "update", noted)
    with pytest.raises(ValueError, match="broken"):
        run(*PICTURES)
    assert threads[-2:] == ["writer", "failed"]
    assert (record(tmp_path / "0")["drawn"], [*images(tmp_path / "0")]) == (3, [0, 1, 2])
