"""Commands of the package as processes forked from one that has imported everything already.

Importing torch and diffusers takes most of the processor time of a short command. A forked command has its own process
id, session, signals, working folder, environment and end of the interpreter, as ``python -m`` gives it. Tests of the
start itself and of clusters use ``subprocess`` instead.

Linux alone; elsewhere ``Popen`` is that of ``subprocess``.
"""

import atexit
import fcntl
import gc
import json
import os
import runpy
import selectors
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ADDRESS = "DIFFEXP_TESTS_FORK_SERVER"
"""The variable by which all find the server, also commands for the workers that they start; set in conftest.py."""
MODULES = ("diffexp", "diffexp.certify", "diffexp.report", "diffexp.sweeps", "torch.distributed.run")
STANDARD = (0, 1, 2)
AVAILABLE = hasattr(os, "pidfd_open")
LONGEST = 1 << 20
"""Bytes of a request."""


class Popen(subprocess.Popen):
    """As ``subprocess.Popen``; Python with one of ``MODULES`` or a script is forked."""

    _status: socket.socket | None = None

    # The hooks by which the class itself starts and awaits processes; the same from Python 3.11 to 3.14.
    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, *rest: Any) -> None:
        words = _words(args) if AVAILABLE and not preexec_fn and not rest[1] else []  # no descriptors to pass on
        if not words:
            return super()._execute_child(args, executable, preexec_fn, *rest)  # type: ignore[misc]
        _, _, cwd, env, _, _, _, *pipes = rest
        p2cread, _, _, c2pwrite, _, errwrite = pipes[:6]
        variables = {os.fsdecode(key): os.fsdecode(value) for key, value in (env or os.environ).items()}
        request = {
            "words": words,
            "folder": os.path.abspath(os.fspath(cwd or ".")),
            "environment": variables | {ADDRESS: os.environ[ADDRESS]},
        }
        ends = [own if end == -1 else end for own, end in zip(STANDARD, (p2cread, c2pwrite, errwrite))]
        self._status = _connected()
        socket.send_fds(self._status, [json.dumps(request).encode()], ends)
        self.pid = int(self._status.recv(32))
        self._child_created = True
        self._close_pipe_fds(*pipes[:6])  # type: ignore[attr-defined]
        return None

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._status is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc]
        self._status.setblocking(not wait_flags & os.WNOHANG)
        try:
            status = int(self._status.recv(32) or -1)
        except BlockingIOError:
            return 0, 0
        self._status.close()
        return self.pid, status

    def _internal_poll(self, *rest: Any, **more: Any) -> int | None:
        if self._status is None:
            return super()._internal_poll(*rest, **more)  # type: ignore[misc]
        with self._waitpid_lock:  # type: ignore[attr-defined]
            if self.returncode is None:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


def _words(args: Any) -> list[str]:
    """The module or script that Python is to run, with its arguments; empty for other programs."""
    given: list[Any] = [args] if isinstance(args, str | os.PathLike) else list(args)
    first, *words = (str(os.fspath(word)) for word in given)
    words = words[words[:1] == ["-u"] :]  # as torchrun starts its ranks
    if first != sys.executable or not words:
        return []
    if words[0] == "-m":
        return words[1:] if words[1] in MODULES else []
    return words if words[0].endswith(".py") else []


def _connected() -> socket.socket:
    """A connection to the server, which is started when it is first wanted, once for all workers of the suite."""
    address = Path(os.environ[ADDRESS])
    if not address.exists():
        with address.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not address.exists():
                _start_server(address)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    found.connect(str(address))
    return found


def _start_server(address: Path) -> None:
    suite = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.fork_server", str(address), str(suite)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    atexit.register(lambda: server)  # it ends with the suite; until then it is no object to complain of
    assert server.stdout and server.stdout.readline() == b"ready\n"


def _import_all() -> None:
    """Most of what a command may import; not training, and nothing that itself imports transformers or trackers."""
    for path in sorted((ROOT / "diffexp").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1:2] != ("train",) and not {"__main__", "trackers", "text_to_image"} & set(parts):
            with suppress(ImportError):  # an extra that is not installed
                import_module(".".join(part for part in parts if part != "__init__"))


def _serve(address: str, suite: int) -> dict[str, Any] | None:
    """Fork a process for every request; returns the request in the forked one, and None once the suite has ended."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, selectors.DefaultSelector() as ready:
        listener.bind(address + "~")
        listener.listen(64)
        os.rename(address + "~", address)  # whoever finds it can connect
        print("ready", flush=True)
        ready.register(listener, selectors.EVENT_READ)
        ready.register(os.pidfd_open(suite), selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    content, ends, _, _ = socket.recv_fds(connection, LONGEST, len(STANDARD))
                    pid = os.fork()
                    if pid == 0:
                        for standard, end in zip(STANDARD, ends, strict=True):
                            os.dup2(end, standard)
                        return json.loads(content)
                    for end in ends:
                        os.close(end)
                    connection.send(str(pid).encode())
                    ready.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
                elif key.data is None:
                    return None
                else:
                    ready.unregister(key.fileobj)
                    os.close(key.fd)
                    pid, connection = key.data
                    with suppress(OSError), connection:  # who asked may have ended
                        connection.send(str(os.waitpid(pid, 0)[1]).encode())


def main(address: str, suite: str) -> None:
    subprocess.Popen = Popen  # before modules import its name
    _import_all()
    assert threading.active_count() == 1, "threads are not forked"
    gc.collect()
    gc.freeze()
    request = _serve(address, int(suite))
    if request is None:
        return
    os.closerange(len(STANDARD), 1024)  # those of other commands
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[:] = request["words"]
    if sys.argv[0].endswith(".py"):
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        sys.path[0] = os.getcwd()
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
