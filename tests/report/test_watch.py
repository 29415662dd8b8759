"""The server of ``--watch``: what it sends, and every way that was tried to get something else out of it."""

import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from diffexp.errors import InputError
from diffexp.experiment.lock import lock
from diffexp.report.served_files import MalformedTarget, ServedFolder, names_of
from diffexp.report.watch import Server
from tests.made_up import HOSTILE, made_up_cell, made_up_sweep
from tests.served import ask, send, served

SECRET = "the-secret-that-nobody-may-read"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep, beside files that are none of the server's business."""
    base = tmp_path_factory.mktemp("served")
    (base / "secret.txt").write_text(SECRET)
    (base / "outside").mkdir()
    (base / "outside" / "secret.txt").write_text(SECRET)
    (base / "outside" / "run.json").write_text(json.dumps({"config": {}, "status": "done", "error": SECRET}))
    root = made_up_sweep(base / "sweep", ["ddim", "euler"], [5, 10])
    (base / "sweep-of-others").mkdir()  # a name that begins as the root's does
    (base / "sweep-of-others" / "secret.txt").write_text(SECRET)
    run = root / "0_ddim_5"
    (run / "a b#c?%.txt").write_text("odd")
    (run / "page.html").write_text("<script>1</script>")
    (run / ".env").write_text(SECRET)
    (root / "results.csv").write_text("cell\n0\n")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text(SECRET)
    (root / "notes").mkdir()
    (root / "notes" / "private.txt").write_text(SECRET)
    (root / "to_file.txt").symlink_to(base / "secret.txt")
    (root / "to_folder").symlink_to(base / "outside")
    (root / "to_hidden.txt").symlink_to(root / ".git" / "config")
    (root / "latest").symlink_to("1_ddim_10")
    (run / "to_file.txt").symlink_to("../../secret.txt")
    (run / "to_folder").symlink_to("../../outside")
    (run / "loop").symlink_to("loop")
    os.mkfifo(run / "pipe.txt")
    return root


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    with served(folder) as port:
        yield port


REFUSED = {
    "above": "/../secret.txt",
    "above, encoded": "/%2e%2e/secret.txt",
    "above, half encoded": "/.%2E/secret.txt",
    "above, slash encoded": "/..%2fsecret.txt",
    "above, all encoded": "/%2e%2e%2fsecret.txt",
    "above, encoded twice": "/%252e%252e/secret.txt",
    "above, overlong UTF-8": "/%c0%ae%c0%ae/secret.txt",
    "above, from a run": "/0_ddim_5/../../secret.txt",
    "above and back": "/../sweep/results.csv",
    "above, in the query too": "/../secret.txt?x=/results.csv",
    "above, with dots and a space": "/..%20/secret.txt",
    "a folder beside, by its beginning": "/../sweep-of-others/secret.txt",
    "backslash": "/..\\secret.txt",
    "backslash, encoded": "/..%5csecret.txt",
    "a drive": "/C:%5csecret.txt",
    "absolute": "//etc/passwd",
    "absolute, encoded": "/%2fetc/passwd",
    "absolute, deeper": "/0_ddim_5//etc/passwd",
    "absolute, three slashes": "///etc/passwd",
    "home": "/~root/.bashrc",
    "null byte": "/results.csv%00.png",
    "null byte, alone": "/%00",
    "line end": "/results.csv%0d%0aX-Evil:1",
    "not UTF-8": "/%ff",
    "not ASCII": b"/\xff\xfe",
    "here": "/0_ddim_5/./run.json",
    "nothing between": "/0_ddim_5//run.json",
    "another form": "http://localhost/results.csv",
    "another form, another host": "http://evil.example/results.csv",
    "another scheme": "file:///etc/passwd",
    "a star": "*",
    "no slash": "results.csv",
    "a link to a file": "/to_file.txt",
    "a link to a folder": "/to_folder/secret.txt",
    "a link to a folder with a run": "/to_folder/run.json",
    "a link to a folder, itself": "/to_folder/",
    "a link in a run": "/0_ddim_5/to_file.txt",
    "a link to a folder in a run": "/0_ddim_5/to_folder/secret.txt",
    "a link to something hidden": "/to_hidden.txt",
    "a link to itself": "/0_ddim_5/loop",
    "a named pipe": "/0_ddim_5/pipe.txt",
    "hidden": "/.git/config",
    "hidden in a run": "/0_ddim_5/.env",
    "hidden, encoded": "/%2egit/config",
    "a folder without runs": "/notes/",
    "a file there": "/notes/private.txt",
    "a file as a folder": "/results.csv/x",
    "nothing": "/missing.txt",
    "a long name": "/" + "a" * 5000,
    "many names": "/a" * 5000,
}


@pytest.mark.parametrize("target", REFUSED.values(), ids=REFUSED.keys())
def test_nothing_else_is_sent(port: int, target: str | bytes):
    for method in ("GET", "HEAD"):
        answer = ask(port, target, method)
        assert answer.status in (400, 404), answer
        assert SECRET.encode() not in answer.body
        assert b"root:" not in answer.body
        assert "X-Evil" not in answer.headers


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.2", "0.0.0.0", "localhost.",
     "localhost:80:80", "localhost:", "localhost:x", "user@localhost", "localhost/", "localhost evil.example", "[::2]"],
)  # fmt: skip
def test_another_host_is_refused(port: int, host: str | None):
    answer = ask(port, "/results.csv", host=host)
    assert answer.status in (400, 403)
    assert b"cell" not in answer.body


def test_names_of_this_machine_are_accepted_at_any_port(port: int):
    for host in ("localhost", "LocalHost:80", "127.0.0.1:9000", f"127.0.0.1:{port}", "[::1]:80"):
        assert ask(port, "/results.csv", host=host).status == 200
    twice = send(port, b"GET /results.csv HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    assert twice.startswith(b"HTTP/1.1 400")


def test_other_sites_may_link_here_but_use_nothing(port: int):
    other = {"Sec_Fetch_Site": "cross-site"}
    assert ask(port, "/0_ddim_5/samples/000000.png", **other, Sec_Fetch_Mode="no-cors").status == 403
    assert ask(port, "/", **other, Sec_Fetch_Mode="navigate").status == 200
    headers = ask(port, "/results.csv", Origin="http://evil.example").headers
    assert not any(name.startswith("Access-Control") for name in headers)
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND"])
def test_it_is_read_only(port: int, folder: Path, method: str):
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    body = "x" * 10
    answer = send(
        port, f"{method} /results.csv HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{body}".encode()
    )
    assert answer.startswith(b"HTTP/1.1 405")
    assert b"Allow: GET, HEAD" in answer
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before


MALFORMED = {
    "nothing": b"",
    "a line end": b"\r\n\r\n",
    "one word": b"GET\r\n\r\n",
    "no version": b"GET /results.csv\r\n\r\n",
    "too many words": b"GET /results.csv x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an old version": b"GET /results.csv HTTP/0.9\r\nHost: localhost\r\n\r\n",
    "a new version": b"GET /results.csv HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "no version number": b"GET /results.csv HTTP/a.b\r\nHost: localhost\r\n\r\n",
    "another protocol": b"GET /results.csv FTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no line end": b"GET /results.csv HTTP/1.1",
    "a long line": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "many headers": b"GET /results.csv HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    "a long header": b"GET /results.csv HTTP/1.1\r\nHost: localhost\r\na: " + b"b" * 70_000 + b"\r\n\r\n",
    "no colon": b"GET /results.csv HTTP/1.1\r\nlocalhost\r\n\r\n",
    "a folded Host": b"GET /results.csv HTTP/1.1\r\nHost: localhost\r\n evil.example\r\n\r\n",
    "a space before the colon": b"GET /results.csv HTTP/1.1\r\nHost : localhost\r\n\r\n",
}


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_requests_get_no_file_and_no_traceback(port: int, request_: bytes, capfd: pytest.CaptureFixture[str]):
    received = send(port, request_)
    assert b"cell\n0" not in received
    assert b" 200 " not in received.partition(b"\r\n")[0]
    assert ask(port, "/results.csv").status == 200, "it goes on"
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("length", ["55", "-1", "x", "99999999999999999999"])
def test_a_body_is_no_second_request(port: int, length: str):
    head = f"GET /results.csv HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    received = send(port, head.encode() + b"GET /0_ddim_5/run.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in received


def test_a_link_that_appears_after_the_check_is_not_followed(tmp_path: Path):
    root = made_up_sweep(tmp_path / "sweep", ["ddim"], [5])
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "000000.png").write_text(SECRET)
    files = ServedFolder(root)
    place = files.find(("0_ddim_5", "samples", "000000.png"))
    assert place
    (root / "0_ddim_5" / "samples").rename(root / "0_ddim_5" / "moved")
    (root / "0_ddim_5" / "samples").symlink_to(tmp_path / "samples")
    assert files.open(place) is None
    assert files.find(("0_ddim_5", "samples", "000000.png")) is None


def test_connections_that_end_early_leave_no_traceback(port: int, folder: Path, capfd: pytest.CaptureFixture[str]):
    (folder / "0_ddim_5" / "large.bin").write_bytes(bytes(8_000_000))
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port), 20) as connection:
            connection.sendall(b"GET /0_ddim_5/large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.recv(10)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert ask(port, "/results.csv").status == 200
    assert "Traceback" not in capfd.readouterr().err


# what is sent


@pytest.mark.parametrize(
    ("target", "kind", "begin"),
    [
        ("/", "text/html; charset=utf-8", b"<!doctype html>"),
        ("/report.html?x=1", "text/html; charset=utf-8", b"<!doctype html>"),
        ("/results.csv", "text/csv; charset=utf-8", b"cell"),
        ("/0_ddim_5/run.json", "application/json; charset=utf-8", b"{"),
        ("/0_ddim_5/.hydra/overrides.yaml", "text/plain; charset=utf-8", b"["),
        ("/0_ddim_5/samples/000000.png", "image/png", b"\x89PNG"),
        ("/0_ddim_5/a%20b%23c%3F%25.txt", "text/plain; charset=utf-8", b"odd"),
        ("/latest/run.json", "application/json; charset=utf-8", b"{"),
        ("/0_ddim_5/page.html", "text/html; charset=utf-8", b"<script>"),
    ],
)
def test_files_of_runs_and_sweeps_are_sent(port: int, target: str, kind: str, begin: bytes):
    answer = ask(port, target)
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
    assert answer.body.startswith(begin)
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    assert answer.headers["Cache-Control"] == "no-cache"
    head = ask(port, target, "HEAD")
    assert (head.status, head.body, head.headers["ETag"]) == (200, b"", answer.headers["ETag"])
    same = ask(port, target, If_None_Match=f'"x", W/{answer.headers["ETag"]}')
    assert (same.status, same.body) == (304, b"")
    assert ask(port, target, If_None_Match='"other"').status == 200
    assert ("sandbox" in answer.headers["Content-Security-Policy"]) == (
        not target.startswith(("/report", "/?")) and target != "/"
    )


def test_folders_of_runs_are_listed_without_what_is_hidden(port: int):
    answer = ask(port, "/0_ddim_5/")
    links = set(re.findall(r'href="([^"]*)"', answer.body.decode()))
    assert {"./run.json", "./samples/", "./.hydra/", "./a%20b%23c%3F%25.txt", "/report.html"} <= links
    assert not any("env" in link or "to_file" in link or "to_folder" in link or "loop" in link for link in links)
    moved = ask(port, "/0_ddim_5?x")
    assert (moved.status, moved.headers["Location"]) == (301, "/0_ddim_5/")
    assert b'href="../"' in ask(port, "/0_ddim_5/samples/").body
    assert b"000000.png" in ask(port, "/0_ddim_5/samples/").body


def test_a_listing_of_very_many_files_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = made_up_cell(tmp_path, "0_a", {"steps": 5}, pictures=9)
    monkeypatch.setattr("diffexp.report.watch.MOST_ENTRIES", 7)
    monkeypatch.setattr("diffexp.report.watched_page.MOST_PICTURES", 3)
    with served(tmp_path) as port:
        text = ask(port, "/0_a/samples/").body.decode()
        assert "000006.png" in text
        assert "000007.png" not in text
        assert "The first 7 are listed." in text
        assert text.count("<img") == 3
        (run / "empty").mkdir()
        assert b"Nothing to show here." in ask(port, "/0_a/empty/").body


def test_names_in_a_listing_are_text(tmp_path: Path):
    run = made_up_cell(tmp_path, "0_a", {"steps": 5})
    name = HOSTILE.replace("/", "|")
    (run / name).write_text("x")
    with served(tmp_path) as port:
        text = ask(port, "/0_a/").body.decode()
        assert "<script>alert" not in text
        assert "onerror" not in re.sub(r"&lt;.*?&gt;|href=\"[^\"]*\"", "", text)
        found = re.search(r'href="(\./[^"]*alert[^"]*)"', text)
        assert found
        assert ask(port, "/0_a" + found[1][1:]).body == b"x"


def test_a_folder_that_is_a_run_or_has_none_yet(tmp_path: Path):
    run = made_up_cell(tmp_path / "sweep", "0_a", {"steps": 5})
    with Server(run, 0) as server:
        assert server.url.endswith("/report.html")
    with served(run) as port:
        assert b"run.json" in ask(port, "/").body
        assert b'id="results"' in ask(port, "/report.html").body
    (tmp_path / "empty").mkdir()
    with served(tmp_path / "empty") as port:
        before = ask(port, "/")
        assert b"No run has begun here yet" in before.body
        made_up_cell(tmp_path / "empty" / "sweep", "0_a", {"steps": 5})
        threading.Event().wait(1.1)  # longer than the folder is not read
        after = ask(port, "/", If_None_Match=before.headers["ETag"])
        assert after.status == 200
        assert b"sweep/0_a/samples/000000.png" in after.body


def test_the_page_follows_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("diffexp.report.watched_page.CHECK_SECONDS", 0.0)
    monkeypatch.setattr("diffexp.report.watched_page.REST", 0.0)
    made_up_cell(tmp_path, "0_ddim_5", {"scheduler": {"name": "ddim"}, "steps": 5})
    dead = made_up_cell(tmp_path, "1_ddim_9", {"scheduler": {"name": "ddim"}, "steps": 9}, status="running", pictures=1)
    cells = [["scheduler=ddim", f"steps={steps}"] for steps in (5, 9, 20)]
    (tmp_path / "sweep.json").write_text(json.dumps({"overrides": [], "cells": cells}))
    with served(tmp_path) as port:
        first = ask(port)
        assert b"1 of 3 cells done, 1 interrupted, 1 missing" in first.body
        assert ask(port, If_None_Match=first.headers["ETag"]).status == 304
        with lock(tmp_path), lock(dead):
            text = ask(port).body.decode()
            assert "1 of 3 cells done, 1 running, 1 waiting" in text
            assert "1_ddim_9 (1 of 64 samples)" in text
            assert "Compared: nothing yet" in text
        made_up_cell(tmp_path, "2_ddim_20", {"scheduler": {"name": "ddim"}, "steps": 20})
        assert b"2 of 3 cells done, 1 interrupted" in ask(port).body


def test_a_page_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made_up_cell(tmp_path, "0_a", {"steps": 5})
    monkeypatch.setattr("diffexp.report.watched_page.runs_in", lambda *_: 1 / 0)
    with served(tmp_path) as port:
        answer = ask(port)
        assert answer.status == 500
        assert answer.body.count(b"\n") == 1
        assert ask(port, "/0_a/run.json").status == 200


def test_points_are_shown(tmp_path: Path):
    made_up_cell(tmp_path, "0_a", {"steps": 5}, points=torch.rand(30, 2))
    with served(tmp_path) as port:
        assert b"data:image/png;base64" in ask(port).body


def test_only_this_machine_is_listened_to(folder: Path):
    with Server(folder, 0) as server:
        assert server.socket.getsockname()[0] == "127.0.0.1"
        with pytest.raises(InputError, match=f"port={server.server_port} is in use; choose another"):
            Server(folder, server.server_port)


@pytest.mark.parametrize("target", ["", "a", "/a/../b", "/./", "//", "/a//", "/%5c", "/%0a", "/\x7f", "/é"])
def test_targets_that_are_no_paths(target: str):
    with pytest.raises(MalformedTarget):
        names_of(target)
    assert names_of("/") == ()
    assert names_of("/a%20b/c/?d#e") == ("a b", "c")
