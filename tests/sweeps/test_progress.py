"""How far a whole sweep is."""

import logging
from pathlib import Path

import pytest

from diffexp.experiment import progress as lines
from diffexp.experiment.context import RunContext
from diffexp.sweeps.logs import cell_logging, sweep_logging
from diffexp.sweeps.progress import Progress


def test_progress_counts_cells_by_their_work():
    progress = Progress({0: 10, 1: 30, 2: 60})
    first, _ = progress.start(0), progress.start(1)
    first.total = 4
    first.update(2)
    assert progress.fraction() == pytest.approx(0.05)
    progress.finished(8)
    progress.end(0, "done")
    progress.end(1, "failed")
    assert progress.fraction() == pytest.approx(0.4)
    text = progress.text()
    assert text.startswith("1 of 3 cells done, 1 failed, 0 running, 1 waiting, ")
    assert text.endswith(" left")
    assert [progress.count(), progress.count()] == ["1/3", "2/3"]


def test_progress_of_others_counts_like_ones_own():
    progress = Progress({0: 10, 1: 30, 2: 60, 3: 100})
    progress.end(0, "done")
    progress.start(3)
    progress.end(3, "elsewhere")
    progress.adopt({0: 1.0, 1: 0.5}, samples=12)
    assert progress.fraction() == pytest.approx(25 / 200)
    assert progress.text().startswith("1 of 4 cells done, 1 running, 2 waiting, ")
    assert progress.state() == ({1: 0.5}, {0: "done"}, 12)


def test_nothing_is_drawn_where_nobody_looks(capsys):
    progress = Progress({0: 1})
    progress.show()
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_off_a_terminal_a_line_is_logged_every_half_minute(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(lines.time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO)
    progress, bar = Progress({0: 1, 1: 1}), RunContext().bar(40)
    for second in range(100, 191):
        now[0] = second
        progress.show()
        bar.update(0)
        if second == 110:
            progress.end(0, "done")
            bar.update(10)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 6, "three of each in 90 seconds"
    assert messages[0].startswith("50 %, 1 of 2 cells done, 0 running, 1 waiting, ")
    assert messages[1] == "sampling: 25 %, 10 of 40 evaluations, 0.333/s, 01:30 left"


def test_the_line_of_a_sweep_is_printed_though_a_cell_runs_in_the_same_thread(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(lines, "LINE_SECONDS", 0.0)
    with sweep_logging(), cell_logging(tmp_path):
        progress = Progress({0: 1})
        logging.getLogger().setLevel(logging.INFO)
        progress.show()
    assert capsys.readouterr().out.startswith("0 %, 0 of 1 cells done, ")
    assert "cells done" not in (tmp_path / "diffexp.log").read_text()
