"""The server of ``--watch`` in this process, and requests to it that are written by hand."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diffexp.report.watch import Server


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@contextmanager
def served(root: Path) -> Iterator[int]:
    """A server in this process; its port."""
    with Server(root, 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def send(port: int, request: bytes) -> bytes:
    """All that the server answers to some bytes, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def ask(
    port: int, target: str | bytes = "/", method: str = "GET", host: str | None = "localhost", **more: str
) -> Answer:
    path = target.encode() if isinstance(target, str) else target
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    lines += [f"Host: {host}"] if host is not None else []
    received = send(port, b"%s %s HTTP/1.1\r\n%s\r\n\r\n" % (method.encode(), path, "\r\n".join(lines).encode()))
    head, _, body = received.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    return Answer(int(first.split()[1]), dict(line.split(": ", 1) for line in rest), body)
