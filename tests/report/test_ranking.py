"""The ranked table at the end of a sweep."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from diffexp.report.collect import collect
from diffexp.report.content import Report
from diffexp.report.ranking import MAX_ROWS, Ranking, aligned, ranked_table
from diffexp.sweeps.console import show, styled
from diffexp.sweeps.values import Value
from tests.made_up import made_up_cell, made_up_sweep


def ranking(folder: Path, metric: str | None = None) -> Ranking:
    return Ranking(Report(collect([folder]), folder / "report.html"), metric)


def text(ranking: Ranking, width: int | None = None) -> list[str]:
    console = Console(width=width or 500, color_system=None)
    with console.capture() as captured:
        console.print(ranked_table(ranking, width))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_the_best_come_first_with_marks_intervals_and_folders(tmp_path: Path):
    made_up_sweep(tmp_path, ["ddpm", "euler"], [10, 50], passes=20)
    lines = text(ranking(tmp_path))
    assert lines[0] == "4 cells ranked by fid/mnist_cnn (lower is better)"
    rows = [line.split() for line in lines if line.endswith(("_10", "_50"))]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert [row[1:4] for row in rows] == [
        [*name, "20"] for name in (("euler", "50"), ("ddpm", "50"), ("euler", "10"), ("ddpm", "10"))
    ]
    assert [row[-1] for row in rows] == ["3_euler_50", "1_ddpm_50", "2_euler_10", "0_ddpm_10"]
    best = json.loads((tmp_path / "3_euler_50" / "metrics.json").read_text())["fid/mnist_cnn"]
    assert rows[0][5] == f"{best:.2f}*" or rows[0][5] == f"{best:.3f}*"
    assert rows[0][6].startswith("(") and rows[0][8].endswith(")"), "an interval"
    assert sum("*" in line for line in lines) == 3, "one cell is best in fid, another in psnr, and the legend"


def test_what_does_not_differ_significantly_is_undecided(tmp_path: Path):
    for number, quality in enumerate((1.0, 1.0, 3.0)):
        made_up_cell(tmp_path, f"{number}_a", {"x": number}, quality=quality, noise=number)
    found = ranking(tmp_path)
    assert {row.ranks for row in found.rows[:2]} == {(1, 2)} and found.rows[2].ranks == (3, 3)
    marks = found.marks(found.qualities[0])
    assert sorted(marks.values()) == ["*", "~"] and 2 not in marks
    assert any("~ not significantly worse than the best" in line for line in text(found))


def test_cells_of_different_conditions_are_ranked_apart(tmp_path: Path):
    made_up_sweep(tmp_path, ["ddim", "euler"], [5], labels=[1, 2])
    found = ranking(tmp_path)
    assert [row.ranks for row in found.rows] == [(1, 1), (2, 2)] * 2
    assert [found.report.cells[row.cell].config["label"] for row in found.rows] == [1, 1, 2, 2]
    assert any("are ranked apart" in line for line in text(found))


def test_different_numbers_of_samples_are_not_ranked(tmp_path: Path):
    made_up_cell(tmp_path, "0_a", {"x": 0}, quality=1)
    made_up_cell(tmp_path, "1_a", {"x": 1, "num_samples": 99}, quality=9)
    lines = text(ranking(tmp_path))
    assert lines[0].startswith("2 cells in the order of fid/mnist_cnn") and not any(
        "rank " in line for line in lines[:4]
    )
    assert not any("*" in line for line in lines)


def test_without_intervals_nothing_is_claimed(tmp_path: Path):
    for number in range(2):
        folder = made_up_cell(tmp_path, f"{number}_a", {"x": number}, quality=1 + number)
        (folder / "half_samples.safetensors").unlink(missing_ok=True)
        for file in folder.glob("half_samples*"):
            file.unlink()
    found = ranking(tmp_path)
    assert not found.is_ranked and set(found.marks(found.qualities[0]).values()) == {"*", "~"}
    assert any(line.startswith("no ranks") for line in text(found))


def test_only_finished_cells_and_the_asked_metric(tmp_path: Path):
    made_up_sweep(tmp_path, ["ddim", "euler"], [5])
    made_up_cell(tmp_path, "2_x", {"scheduler": {"name": "heun"}, "steps": 5}, status="failed", error="no")
    found = ranking(tmp_path, "psnr")
    assert len(found.rows) == 2 and found.qualities[0].name == "psnr" and found.qualities[0].higher
    values = [found.report.value(row.cell, "psnr") for row in found.rows]
    assert values[0] and values[1] and values[0].value > values[1].value
    assert ranked_table(ranking(made_up_cell(tmp_path / "none", "0", {}, status="failed").parent)) is None


def test_seeds_are_one_row(tmp_path: Path):
    for number in range(4):
        config = {"scheduler": {"name": ("ddim", "euler")[number // 2]}, "seed": number % 2}
        made_up_cell(tmp_path, f"{number}_a", config, quality=1 + number / 10)
    lines = text(ranking(tmp_path))
    assert lines[0].endswith(", means over seeds")
    rows = [line.split() for line in lines if line.endswith("_a")]
    assert [row[1:3] for row in rows] == [["ddim", "2"], ["euler", "2"]]


@pytest.mark.parametrize("width", [40, 80, 240])
def test_it_fits_the_terminal(tmp_path: Path, width: int):
    long = ["a_scheduler_with_a_rather_long_name", "another_one_that_is_even_longer_than_that_one_was"]
    made_up_sweep(tmp_path, long, [10, 50], passes=20)
    lines = text(ranking(tmp_path), width)
    assert max(map(len, lines)) <= width
    joined = " ".join(lines)
    assert "3_another_one" in joined if width == 240 else " cell" in joined, "the folder, or its number"


@pytest.mark.parametrize("width", [80, 160])
def test_notes_are_as_wide_as_the_terminal_not_as_the_table(tmp_path: Path, width: int):
    made_up_sweep(tmp_path, ["a"], [10, 50], labels=[1, 2])
    lines = text(ranking(tmp_path), width)
    table = max(len(line) for line in lines if "─" in line)
    whole = text(ranking(tmp_path))[-3:]
    assert table < max(map(len, whole)), "else it proves nothing"
    assert [line for line in whole if len(line) <= width] == [line for line in whole if line in lines]


def test_more_cells_than_fit_are_in_the_csv(tmp_path: Path):
    made_up_sweep(tmp_path, ["a"], range(1, MAX_ROWS + 3), pictures=0)
    lines = text(ranking(tmp_path))
    assert "2 more cells are in results.csv" in lines and lines[0].startswith(f"{MAX_ROWS + 2} cells")


def test_numbers_stand_one_below_the_other():
    found = aligned([Value(1.23456, 1, 2), Value(123.4), None, Value(-0.5)], ["*", "", "", ""])
    assert [cell.plain for cell in found] == ["  1.235* (1 to 2)", "123.400 ", "        ", " -0.500 "]
    assert [cell.plain for cell in aligned([Value(5.0), Value(10.0)], ["", ""])] == [" 5", "10"]


def test_colours_are_for_terminals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    import sys

    made_up_sweep(tmp_path, ["ddpm", "euler"], [10, 50])
    found = ranking(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for forced, hidden, coloured in (("", "", False), ("1", "", True), ("1", "1", False)):
        monkeypatch.setenv("FORCE_COLOR", forced)
        monkeypatch.setenv("NO_COLOR", hidden)
        assert styled("error:", "bold red", sys.stdout).endswith("\x1b[0m") == coloured
        show(lambda width: ranked_table(found, width))
        out = capsys.readouterr().out
        assert ("\x1b[1;32m" in out) == coloured, (forced, hidden)
        assert all(line == line.rstrip() for line in out.splitlines()), "no spaces at the ends of lines"
