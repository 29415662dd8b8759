"""Commands of the package as processes forked from one that has imported everything already.

Importing torch and diffusers takes most of the processor time of a short command. A forked command has its own process
id, session, signals, working folder, environment and end of the interpreter, as ``python -m`` gives it. Tests of the
start itself, of ranks and of clusters use ``subprocess`` instead.

Linux alone; elsewhere ``Popen`` is that of ``subprocess``.
"""

import atexit
import functools
import gc
import json
import os
import runpy
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ADDRESS = "DIFFEXP_TESTS_FORK_SERVER"
"""The variable by which commands find the server, for the workers that they start."""
MODULES = ("diffexp", "diffexp.certify", "diffexp.report", "diffexp.sweeps")
STANDARD = (0, 1, 2)
AVAILABLE = hasattr(os, "pidfd_open")
LONGEST = 1 << 20
"""Bytes of a request."""


class Popen(subprocess.Popen):
    """As ``subprocess.Popen``; ``python -m`` of one of ``MODULES`` is forked, which needs neither thread nor shell."""

    _status: socket.socket | None = None

    # The hooks by which the class itself starts and awaits processes; the same from Python 3.11 to 3.14.
    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, *rest: Any) -> None:
        if not AVAILABLE or preexec_fn or list(args[:2]) != [sys.executable, "-m"] or args[2] not in MODULES:
            return super()._execute_child(args, executable, preexec_fn, *rest)  # type: ignore[misc]
        _, _, cwd, env, _, _, _, *pipes = rest
        p2cread, _, _, c2pwrite, _, errwrite = pipes[:6]
        address = os.environ.get(ADDRESS) or _address()
        variables = {os.fsdecode(key): os.fsdecode(value) for key, value in (env or os.environ).items()}
        request = {
            "words": [os.fspath(word) for word in args[2:]],
            "folder": os.path.abspath(os.fspath(cwd or ".")),
            "environment": variables | {ADDRESS: address},
        }
        ends = [own if end == -1 else end for own, end in zip(STANDARD, (p2cread, c2pwrite, errwrite))]
        self._status = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._status.connect(address)
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


@functools.cache
def _address() -> str:
    """The address of this process's server, which is started when it is first wanted."""
    address = os.path.join(tempfile.mkdtemp(prefix="fork-server-"), "socket")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.fork_server", address],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert server.stdin and server.stdout
    assert server.stdout.readline() == b"ready\n"
    atexit.register(server.communicate)  # closes its stdin, at which it ends
    return address


def _import_all() -> None:
    """Most of what a command may import; not training, and nothing that itself imports transformers or trackers."""
    for path in sorted((ROOT / "diffexp").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1:2] != ("train",) and not {"__main__", "trackers", "text_to_image"} & set(parts):
            with suppress(ImportError):  # an extra that is not installed
                import_module(".".join(part for part in parts if part != "__init__"))


def _serve(address: str) -> dict[str, Any] | None:
    """Fork a process for every request; returns the request in the forked one, and None once nobody is left to ask."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, selectors.DefaultSelector() as ready:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        ready.register(listener, selectors.EVENT_READ)
        ready.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is sys.stdin:
                    return None
                if key.fileobj is listener:
                    status, _ = listener.accept()
                    content, ends, _, _ = socket.recv_fds(status, LONGEST, len(STANDARD))
                    pid = os.fork()
                    if pid == 0:
                        for standard, end in zip(STANDARD, ends, strict=True):
                            os.dup2(end, standard)
                        return json.loads(content)
                    for end in ends:
                        os.close(end)
                    status.send(str(pid).encode())
                    ready.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, status))
                else:
                    ready.unregister(key.fileobj)
                    os.close(key.fd)
                    pid, status = key.data
                    with suppress(OSError), status:  # who asked may have ended
                        status.send(str(os.waitpid(pid, 0)[1]).encode())


def main(address: str) -> None:
    _import_all()
    assert threading.active_count() == 1, "threads are not forked"
    gc.collect()
    gc.freeze()
    request = _serve(address)
    if request is None:
        return
    os.closerange(len(STANDARD), 1024)  # those of other commands
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[:] = request["words"]
    sys.path[0] = os.getcwd()
    subprocess.Popen = Popen
    runpy.run_module(request["words"][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
