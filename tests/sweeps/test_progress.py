"""How far a whole sweep is."""

import pytest

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
