"""The page of a folder through a server on this machine: made anew when runs change, and read only.

The server listens on 127.0.0.1. A page of another site that a browser has open must not read it: requests whose Host
header names another host are refused, which a DNS name that was pointed at this machine would be (DNS rebinding).
"""

import errno
import logging
import os
import re
import socketserver
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from diffexp.errors import InputError, one_line
from diffexp.report.served_files import MalformedTarget, ServedFolder, is_run_folder, names_of
from diffexp.report.watched_page import MOST_ENTRIES, PAGE, WatchedPage, listing

log = logging.getLogger(__name__)

HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
"""Names of this machine in requests: at any port, since ``ssh -L`` may pass another on."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
    ".wav": "audio/wav",
    ".json": "application/json; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    **dict.fromkeys((".txt", ".log", ".yaml", ".yml", ".jsonl", ".py", ".md"), "text/plain; charset=utf-8"),
}
"""By suffix; other files are downloaded."""
IDLE_SECONDS = 60.0
"""After which a connection without requests is closed."""
OWN_POLICY = "frame-ancestors 'none'"
"""Of pages made here, which state the rest themselves."""
FILE_POLICY = "sandbox; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
SCRIPT_POLICY = "sandbox allow-scripts; frame-ancestors 'none'"
"""Of HTML files: their scripts run, as strangers to this server."""


class Server(ThreadingHTTPServer):
    """Serves a folder on 127.0.0.1.

    Args:
        root: the folder.
        port: 0 for any that is free.

    Raises:
        InputError: the port cannot be used.
    """

    daemon_threads = True
    request_queue_size = 64
    allow_reuse_address = os.name != "nt"  # where it would share the port with another server

    def __init__(self, root: Path, port: int) -> None:
        files = ServedFolder(root)
        self.page = WatchedPage(files.root)
        try:
            super().__init__(("127.0.0.1", port), partial(Handler, files, self.page))
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            raise InputError(f"port={port} {why}; choose another, or port=0 for any that is free") from error

    def server_bind(self) -> None:
        """Bind the socket without asking the network for the name of this machine."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/{PAGE if is_run_folder(self.page.root) else ''}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Log what went wrong with a connection, such as its end while a file was sent."""
        log.debug("a request failed", exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """Answers a request; see ``http.server``."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "diffexp", ""
    timeout = IDLE_SECONDS

    def __init__(self, files: ServedFolder, page: WatchedPage, *arguments: object) -> None:
        self._files = files
        self._page = page
        super().__init__(*arguments)  # pyright: ignore[reportArgumentType]

    def parse_request(self) -> bool:
        """Read the head of a request; False after an answer to one that is refused."""
        if not super().parse_request():
            return False
        if not self.request_version.startswith("HTTP/1."):  # 0.9 has no headers, neither in the answer
            self.send_error(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is needed")
            return False
        if self.command not in ("GET", "HEAD"):
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED, "this server is read only")
            return False
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1:
            self.send_error(HTTPStatus.BAD_REQUEST, "one Host header is needed")
            return False
        if not HOST.fullmatch(hosts[0].strip()):
            self.send_error(HTTPStatus.FORBIDDEN, "this server answers to 127.0.0.1 and localhost only")
            return False
        if self.headers.get("Sec-Fetch-Site") == "cross-site" and self.headers.get("Sec-Fetch-Mode") != "navigate":
            self.send_error(HTTPStatus.FORBIDDEN, "other sites may not use what is here")
            return False
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body, which is not read, is no request
        return True

    def do_GET(self) -> None:
        try:
            names = names_of(self.path)
        except MalformedTarget:
            self.send_error(HTTPStatus.BAD_REQUEST, "not a path of this server")
            return
        if names == ("favicon.ico",):
            self._send(HTTPStatus.NO_CONTENT, b"", "image/x-icon")
        elif names == (PAGE,) or (not names and not is_run_folder(self._files.root)):
            self._send_page()
        else:
            self._send_place(names)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send_page(self) -> None:
        try:
            page = self._page.current()
        except Exception as error:  # whatever is in the folder; the next request may find it in order
            log.warning("no page: %s", one_line(error))
            log.debug("its traceback", exc_info=error)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, f"no page: {one_line(error)}")
            return
        self._send(HTTPStatus.OK, page.content, TYPES[".html"], page.version)

    def _send_place(self, names: Sequence[str]) -> None:
        place = self._files.find(names)
        if place is None:
            self.send_error(HTTPStatus.NOT_FOUND, "no such file here, or none that is shown")
        elif place.is_dir():
            self._send_folder(names, place)
        elif (content := self._files.open(place)) is None:
            self.send_error(HTTPStatus.NOT_FOUND, "this file cannot be read")
        else:
            with content:
                self._send_file(content, place.suffix.lower())

    def _send_folder(self, names: Sequence[str], place: Path) -> None:
        path = "/" + "".join(f"{quote(name)}/" for name in names)
        if not self.path.partition("?")[0].endswith("/"):
            self._send(HTTPStatus.MOVED_PERMANENTLY, b"", TYPES[".txt"], location=path)
            return
        up = "../" if names and self._files.find(names[:-1]) else f"/{PAGE}"
        entries, more = self._files.entries(place, MOST_ENTRIES)
        text = listing("/".join(names) or self._files.root.name, entries, up, more=more)
        self._send(HTTPStatus.OK, text.encode("utf-8", "replace"), TYPES[".html"])

    def _send_file(self, content: BinaryIO, suffix: str) -> None:
        state = os.fstat(content.fileno())
        kind = TYPES.get(suffix, "application/octet-stream")
        policy = SCRIPT_POLICY if suffix == ".html" else FILE_POLICY
        version = f"{state.st_mtime_ns:x}-{state.st_size:x}"
        part = self._part(state.st_size, version)
        if part is None:
            self._send(HTTPStatus.OK, content, kind, version, policy, size=state.st_size)
        elif not part:
            self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"the file has {state.st_size} bytes")
        else:
            content.seek(part.start)
            place = f"bytes {part.start}-{part.stop - 1}/{state.st_size}"
            self._send(HTTPStatus.PARTIAL_CONTENT, content, kind, version, policy, size=len(part), place=place)

    def _part(self, size: int, version: str) -> range | None:
        """The bytes of a file that are asked for, as players of videos do; None for all of them."""
        asked = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", self.headers.get("Range", "").strip())
        if asked is None or not any(asked.groups()) or self.headers.get("If-Range", f'"{version}"') != f'"{version}"':
            return None
        first, last = asked.groups()
        if not first:
            return range(max(0, size - int(last)), size)
        return range(int(first), min(int(last) + 1, size) if last else size)

    def _send(
        self,
        status: HTTPStatus,
        content: bytes | BinaryIO,
        kind: str,
        version: str = "",
        policy: str = OWN_POLICY,
        *,
        size: int | None = None,
        location: str = "",
        place: str = "",
    ) -> None:
        """Send an answer; only its head if that is what was asked for, or if the browser has this version already."""
        if version and self._has(version):
            status = HTTPStatus.NOT_MODIFIED
        self.send_response(status)
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Security-Policy", policy)
        if version:
            self.send_header("ETag", f'"{version}"')
        if location:
            self.send_header("Location", location)
        if place:
            self.send_header("Content-Range", place)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if self.close_connection:
            self.send_header("Connection", "close")
        if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            self.end_headers()
            return
        length = len(content) if isinstance(content, bytes) else size or 0
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self._copy(BytesIO(content) if isinstance(content, bytes) else content, length)

    def _has(self, version: str) -> bool:
        """Whether the browser has a version already."""
        known = re.findall(r'"([^"]*)"|(\*)', self.headers.get("If-None-Match", ""))
        return any(version == tag or star for tag, star in known)

    def _copy(self, content: BinaryIO, length: int) -> None:
        """Send as many bytes as were announced, whatever happens to the file meanwhile."""
        while length and (part := content.read(min(length, 1 << 16))):
            self.wfile.write(part)
            length -= len(part)
        if length:
            self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with a line of text, and close the connection."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._send(
            status,
            f"{status.value} {status.phrase}: {message or explain or ''}\n".encode("utf-8", "replace"),
            TYPES[".txt"],
        )

    def log_message(self, format: str, *arguments: object) -> None:
        log.debug(format, *arguments)


def serve(root: Path, port: int) -> None:
    """Serve a folder until Ctrl-C.

    Raises:
        InputError: the port cannot be used.
    """
    with Server(root, port) as server:
        print(f"report: {server.url}  (Ctrl-C ends the server)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")
