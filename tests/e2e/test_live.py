"""The page of a sweep that runs, and the server, as a user meets them: commands, Ctrl-C, a kill."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import pytest

from diffexp.cli.report import main
from diffexp.report.watch import Server
from tests import fork_server
from tests.e2e.test_shared_runs import PLUGIN as GATED
from tests.e2e.test_sweeps import ENVIRONMENT, command, finish, start
from tests.made_up import made_up_cell, made_up_sweep

LIMIT = 120
"""Seconds after which something hangs."""
SWEEP = "-m model=mixture model.shape=[1,8,8] scheduler=ddim,ddpm,euler,dpmpp_2m steps=100 batch_size=8 tracker=none"


def get(port: int, path: str = "/") -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode("utf-8", "replace")


def until(true: Callable[[], object], running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT
    while not true():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_sweep_is_read_while_it_runs_and_after_it_was_killed(tmp_path: Path):
    sweep = tmp_path / "sweep"
    page = sweep / "report.html"
    running = start(tmp_path, *SWEEP.split(), "num_samples=20000", "metric=cost", f"hydra.sweep.dir={sweep}")
    try:
        until(lambda: any(sweep.glob("*/samples/*.png")), running)
        with Server(sweep, 0) as server:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            status, text = get(server.server_port)
            assert status == 200
            assert re.search(r"0 of 4 cells done, \d running(, \d waiting)?<", text), text[:3000]
            until(page.exists, running)
            first = page.read_text()
            assert "0 of 4 cells done" in first
            assert re.search(r"Running: .*\(\d+ of 20000 samples\)", first)
            until(lambda: page.read_text() != first, running)
            for text in (first, page.read_text()):
                assert text.rstrip().endswith("</html>"), "whole at any moment"
                assert 'id="live"' in text
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            for lock in sweep.rglob(".lock"):  # as if a minute had passed
                os.utime(lock, (time.time() - 60, time.time() - 60))
            server.shutdown()
        with Server(sweep, 0) as server:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            _, text = get(server.server_port)
            assert re.search(r"0 of 4 cells done, \d interrupted", text)
            assert "running<" not in text.partition('id="live"')[2].partition("</section>")[0]
            server.shutdown()
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
    assert 'id="live"' in page.read_text(), "nobody was left to replace it"


def test_the_driver_of_workers_writes_the_page(tmp_path: Path):
    page, gate = tmp_path / "s" / "report.html", tmp_path / "gate"
    for file, text in ((gate / "closed", ""), (tmp_path / "plugins" / "gated.py", GATED)):
        file.parent.mkdir()
        file.write_text(text)
    words = ["num_samples=16", "metric=cost", "hydra.sweep.dir=s", "workers=1", "hydra/launcher=local"]
    running = start(tmp_path, *SWEEP.split(), *words, "loop=gated", f"loop.gate={gate}")
    until(page.exists, running)
    assert 'id="live"' in page.read_text()
    (gate / "open").touch()
    code, _, errors = finish(running)
    assert code == 0, errors
    assert 'id="live"' not in page.read_text()


def test_the_page_of_a_short_sweep_is_final(tmp_path: Path):
    code, _, errors = command(
        tmp_path, *SWEEP.replace("100", "3").split(), "num_samples=8", "metric=cost", "hydra.sweep.dir=s"
    )
    assert code == 0, errors
    text = (tmp_path / "s" / "report.html").read_text()
    assert 'id="live"' not in text
    assert "data:image/png;base64" in text


def test_the_server_as_a_command(tmp_path: Path):
    folder = made_up_sweep(tmp_path / "runs", ["ddim"], [5, 10])
    words = [sys.executable, "-m", "diffexp.report", "--watch", str(folder), "port=0"]
    running = fork_server.Popen(
        words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert running.stdout
    line = running.stdout.readline()
    found = re.fullmatch(r"report: http://127\.0\.0\.1:(\d+)/  \(Ctrl-C ends the server\)\n", line)
    assert found, line
    port = int(found[1])
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert "2 of 2 cells done" in get(port)[1]
    assert get(port, "/0_ddim_5/run.json")[0] == 200
    assert get(port, "/../runs/0_ddim_5/run.json")[0] == 400
    made_up_cell(folder, "2_ddim_20", {"scheduler": {"name": "ddim"}, "steps": 20})
    until(lambda: "3 of 3 cells done" in get(port)[1], running)
    assert before.items() <= {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path != folder}.items() | {
        (folder, before.get(folder))
    }, "read only"
    taken = subprocess.run(
        [*words[:-1], f"port={port}"], env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (taken.returncode, taken.stdout) == (2, "")
    assert taken.stderr == f"error: port={port} is in use; choose another, or port=0 for any that is free\n"
    os.killpg(running.pid, signal.SIGINT)
    code, out, errors = finish(running)
    assert (code, out, errors) == (0, "stopped\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--watch"], "--watch serves one folder"),
        (["--watch", "a", "b"], "--watch serves one folder"),
        (["--watch", "missing"], "missing is not a folder"),
        (["--watch", "out=x.html"], "out=x.html is not a folder"),
        (["--watch", ".", "port=http"], "port=http is no port: give a number"),
        (["--watch", ".", "port=-1"], "port=-1 is no port"),
        (["--watch", ".", "port=65536"], "port=65536 is no port"),
        (["--watch", ".", "port="], "port= is no port"),
        (["--watch", ".", "port=²"], "port=² is no port"),
        (["--watch", ".", "port=" + "9" * 5000], "99 is no port"),
        ([".", "port=1"], "port=1 is not a folder"),
    ],
)
def test_wrong_words(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    found = capsys.readouterr()
    assert message in found.err
    assert found.err.count("\n") == 1
    assert found.out == ""
