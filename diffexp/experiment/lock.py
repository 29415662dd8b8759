"""One writer per folder: a lock that ends with its process and holds on every machine that shares the disk.

It is ``fcntl.lockf`` on a file in the folder where the file system has that: the kernel releases it when the process
dies, NFS, Lustre, GPFS and CephFS pass it on to other machines, and unlike that of ``flock`` no child inherits it.
Where it is missing (Windows, some mounts) the file itself is the lock: created exclusively, and its time renewed by a
thread of the holder. The time is renewed in both cases, because some mounts keep ``lockf`` to one machine: a lock
that is free although its file names another machine is taken once the time has stood still for ``PATIENCE_SECONDS``.
Clocks of different machines are never compared.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffexp.errors import InputError

NAME = ".lock"
BEAT_SECONDS = 5.0
"""How often a holder renews the time of its file."""
PATIENCE_SECONDS = 20.0
"""How long that time must stand still before another machine's lock counts as left by a dead process."""

LOOK_SECONDS = 0.05
"""Far longer than another process has a file locked only to see whether it is free."""

_holders: dict[Path, int] = {}
"""The locks of this process and the threads that hold them. A process must never open the file of its own lock a second
time: closing it would release the lock."""
_guard = threading.Lock()


class FolderInUse(InputError):
    """Another process, or another thread of this one, writes into the folder."""


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it does not exist.

    Raises:
        FolderInUse: it is held already; the message names the holder.
        InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder.resolve() / NAME
        _reserve(file)
        try:
            handle = _acquire(file)
        except BaseException:
            _holders.pop(file)
            raise
    except OSError as error:
        advice = "choose another with hydra.run.dir=... or hydra.sweep.dir=..."
        raise InputError(f"the output folder {folder} cannot be written: {error.strerror}; {advice}") from error
    released = threading.Event()
    threading.Thread(target=_renew, args=(file, released), daemon=True).start()
    try:
        yield
    finally:
        released.set()
        with suppress(OSError):  # deleted before it is released, so that nobody acquires a file that is about to go
            file.unlink()
        os.close(handle)
        if os.name == "nt":  # which deletes no open file
            file.unlink(missing_ok=True)
        _holders.pop(file)


@contextmanager
def lock_unless_held(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder as ``lock`` does, unless the current thread holds it already."""
    if _holders.get(folder.resolve() / NAME) == threading.get_ident():
        yield
    else:
        with lock(folder):
            yield


class Watch:
    """Tells at once whether folders are locked; that another machine is dead it knows after ``PATIENCE_SECONDS``."""

    def __init__(self) -> None:
        self._beats: dict[Path, tuple[int | None, float]] = {}
        """The last time of each file, and when it was new."""

    def is_held(self, folder: Path) -> bool:
        """Whether a process, or a thread of this one, holds the lock of a folder."""
        file = folder.resolve() / NAME
        try:
            _reserve(file)
        except FolderInUse:
            return True
        try:
            return self._is_held_elsewhere(file)
        finally:
            _holders.pop(file)

    def _is_held_elsewhere(self, file: Path) -> bool:
        try:
            handle = os.open(file, os.O_RDWR)
        except OSError:
            return False
        try:
            in_kernel = _lock_in_kernel(handle)
            holder = _read(handle)
        finally:
            os.close(handle)
        if in_kernel is False:
            return True
        if _is_known_to_be_dead(holder, in_kernel is True):
            return False
        beat, now = _time_of(file), time.monotonic()
        known, since = self._beats.get(file, (None, now))
        if beat != known:
            self._beats[file] = known, since = beat, now
        return beat is not None and now < since + PATIENCE_SECONDS


def _reserve(file: Path) -> None:
    """Exclude the other threads of this process, which its kernel lock does not."""
    with _guard:
        if file in _holders:
            raise _in_use(file, {"pid": os.getpid(), "host": socket.gethostname()})
        _holders[file] = threading.get_ident()


def _acquire(file: Path) -> int:
    """Acquire the lock; returns the open file, which holds it."""
    while True:
        handle, created = _open(file)
        acquired = False
        try:
            in_kernel = _lock_in_kernel(handle)
            if in_kernel is False:  # perhaps another process has only looked, see ``Watch``
                time.sleep(LOOK_SECONDS)
                in_kernel = _lock_in_kernel(handle)
            if in_kernel is False:
                raise _in_use(file, _read(handle))
            if not _is_file(handle, file):  # its holder deleted it in the meantime
                continue
            holder = {} if created else _read(handle)
            if not created and _is_alive(file, holder, in_kernel is True):
                raise _in_use(file, holder)
            if in_kernel or created:
                _write(handle)
                acquired = True
                return handle
            _remove_abandoned(file, handle)
        finally:
            if not acquired:
                os.close(handle)


def _open(file: Path) -> tuple[int, bool]:
    """The open file, and whether this call has created it."""
    while True:
        with suppress(FileExistsError):
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        with suppress(FileNotFoundError):
            return os.open(file, os.O_RDWR), False


def _lock_in_kernel(handle: int) -> bool | None:
    """Whether ``fcntl.lockf`` acquires the file; None where there are no such locks."""
    try:
        import fcntl

        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except (ImportError, OSError):
        return None
    return True


def _is_alive(file: Path, holder: dict[str, Any], in_kernel: bool) -> bool:
    """Whether the holder of a file still runs; a kernel lock has answered that for the same machine already."""
    if _is_known_to_be_dead(holder, in_kernel):
        return False
    began, deadline = _time_of(file), time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(BEAT_SECONDS / 10)
        if (now := _time_of(file)) != began:
            return now is not None
    return False


def _is_known_to_be_dead(holder: dict[str, Any], in_kernel: bool) -> bool:
    """Whether a file whose lock is free, or not known to the kernel, is left by a dead process of this machine."""
    if holder.get("host") == socket.gethostname():
        return in_kernel or not _is_running(holder.get("pid"))
    return in_kernel and not holder


def _is_running(pid: Any) -> bool:
    """Whether a process of this machine runs; assumed where the system cannot say."""
    if os.name != "posix" or not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _time_of(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None


def _is_file(handle: int, file: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except OSError:
        return False


def _remove_abandoned(file: Path, handle: int) -> None:
    """Remove the file of a dead holder, unless another process has just replaced it by its own."""
    aside = file.with_name(f"{NAME}-{socket.gethostname()}-{os.getpid()}")
    with suppress(OSError):
        file.rename(aside)
        if not _is_file(handle, aside):
            os.link(aside, file)
        aside.unlink()


def _read(handle: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(handle, 4096, 0) if hasattr(os, "pread") else os.read(handle, 4096))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(handle: int) -> None:
    own = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with suppress(OSError):  # on a full disk the lock holds without a name
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, json.dumps(own).encode())


def _renew(file: Path, released: threading.Event) -> None:
    while not released.wait(BEAT_SECONDS):
        with suppress(OSError):
            os.utime(file)


def _in_use(file: Path, holder: dict[str, Any]) -> FolderInUse:
    known = f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= holder.keys() else "another process"
    since = f" since {holder['since']}" if "since" in holder else ""
    return FolderInUse(
        f"{known} is still running in {file.parent}{since}; wait until it has ended, or choose another folder"
    )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_holders.clear)  # a child inherits no lock
