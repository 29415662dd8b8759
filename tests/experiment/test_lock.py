"""One writer per folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from diffexp.errors import InputError
from diffexp.experiment import lock as module
from diffexp.experiment.lock import NAME, FolderInUse, Watch, lock, lock_unless_held

HOLD = """
import sys, time
from pathlib import Path
from diffexp.experiment.lock import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``tmp_path``."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def without_kernel_locks(monkeypatch):
    """A file system, or a Windows, without ``fcntl.lockf``."""
    monkeypatch.setattr(module, "_lock_in_kernel", lambda handle: None)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 1.0)


def test_the_second_process_is_refused_and_the_holder_named(tmp_path, holder):
    with pytest.raises(FolderInUse) as refused, lock(tmp_path):
        pass
    message = str(refused.value)
    assert message.startswith(f"process {holder.pid} on {socket.gethostname()} is still running in {tmp_path} since 20")
    assert "\n" not in message
    assert isinstance(refused.value, InputError)


def test_the_lock_dies_with_its_process(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / NAME).exists()
    with lock(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / NAME).exists()


def test_a_lock_without_kernel_dies_with_its_process_too(tmp_path, holder, without_kernel_locks, impatient):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with lock(tmp_path), pytest.raises(FolderInUse), lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_threads_of_one_process_exclude_each_other(tmp_path):
    told: list[BaseException] = []

    def other() -> None:
        try:
            with lock_unless_held(tmp_path):
                pass
        except FolderInUse as error:
            told.append(error)

    with lock(tmp_path), lock_unless_held(tmp_path / "."):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"process {os.getpid()}" in str(told[0])
    other()
    assert len(told) == 1


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("alive", [True, False])
def test_another_machine_holds_its_lock_as_long_as_it_renews_it(tmp_path, kernel, alive, impatient, monkeypatch):
    """Also where the kernel's lock is free, because the mount keeps it to one machine."""
    if not kernel:
        monkeypatch.setattr(module, "_lock_in_kernel", lambda handle: None)
    file = tmp_path / NAME
    file.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "2026-01-01"}))
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(0.05):
            os.utime(file)

    thread = threading.Thread(target=renew, daemon=True)
    if alive:
        thread.start()
    try:
        if alive:
            with pytest.raises(FolderInUse, match="process 1 on elsewhere is still running"), lock(tmp_path):
                pass
        else:
            with lock(tmp_path):
                pass
    finally:
        stop.set()


def test_a_holder_renews_its_time(tmp_path, impatient):
    with lock(tmp_path):
        began = (tmp_path / NAME).stat().st_mtime_ns
        deadline = time.monotonic() + 30
        while (tmp_path / NAME).stat().st_mtime_ns == began:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_of_many_at_once_one_succeeds(tmp_path):
    script = HOLD.replace("time.sleep(600)", "sys.stdin.read()")
    command = [sys.executable, "-c", script, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    while sum(process.poll() is not None for process in processes) < 3:
        time.sleep(0.02)
    outputs = [process.communicate() for process in processes]
    assert [out for out, _ in outputs].count("held\n") == 1
    assert sum("FolderInUse" in errors for _, errors in outputs) == 3


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="cannot be written: Not a directory; choose another"),
        lock(tmp_path / "file" / "x"),
    ):
        pass


def test_a_run_is_refused_and_the_folder_is_untouched(catalog, compose, tmp_path, holder):
    from diffexp.experiment.run import run_experiment

    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(FolderInUse):
        run_experiment(compose("model=mixture", "steps=2", "num_samples=2"), tmp_path, catalog)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_cell_that_runs_elsewhere_is_named_and_untouched(together, failures, tmp_path):
    words = ("model=mixture", "steps=2", "num_samples=2")
    cell = tmp_path / "sweep" / "0"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(cell)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        folders = together(words, (*words, "seed=1"))
    finally:
        process.kill()
        process.wait()
    assert [failure.message.partition(" on ")[0] for failure in failures] == [f"process {process.pid}"]
    assert not (folders[0] / "run.json").exists()
    assert json.loads((folders[1] / "run.json").read_text())["status"] == "done"
    failures.clear()
    together(words, (*words, "seed=1"), resumed=True)
    assert not failures
    assert not list(Path(folders[0]).glob(".hydra/failure.json"))


def test_looking_at_a_lock_tells_whether_it_is_held_and_leaves_it(tmp_path, holder):
    watch = Watch()
    assert watch.is_held(tmp_path)
    with pytest.raises(FolderInUse), lock(tmp_path):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert not watch.is_held(tmp_path)
    assert not watch.is_held(tmp_path / "nowhere")
    with lock(tmp_path):
        assert watch.is_held(tmp_path)
        assert (tmp_path / NAME).exists()
        assert subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True).returncode == 1


def test_another_machine_is_watched_without_waiting(tmp_path, impatient):
    (tmp_path / NAME).write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    watch, deadline = Watch(), time.monotonic() + 30
    assert watch.is_held(tmp_path)
    while watch.is_held(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.utime(tmp_path / NAME)  # it was only slow
    assert watch.is_held(tmp_path)
