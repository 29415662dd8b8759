"""Tables of results: what is in them, what is marked, and that any text survives."""

import csv
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markupsafe import escape
from PIL import Image

import diffexp
from diffexp.cli.report import main
from diffexp.errors import InputError
from diffexp.report.result_table import value_text
from diffexp.report.tables import write_table
from diffexp.sweeps.values import Value
from tests.made_up import HOSTILE, made_up_cell


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two schedulers at two numbers of steps, three seeds each, and a cell that failed."""
    for number, (name, quality) in enumerate((("ddim", 3.0), ("heun", 1.0))):
        for steps in (5, 10):
            for seed in range(3):
                config = {"scheduler": {"name": name}, "steps": steps, "seed": seed}
                value = quality - steps / 20 + seed / 100
                made_up_cell(tmp_path / "s", f"{number}_{name}_{steps}_{seed}", config, quality=value, passes=steps)
    failed = {"scheduler": {"name": "ddpm"}, "steps": 5}
    made_up_cell(tmp_path / "s", "9_ddpm", failed, status="failed", error="ValueError: no, no")
    return tmp_path / "s"


def markdown_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_number_of_every_cell(sweep: Path, tmp_path: Path) -> None:
    out = write_table([sweep], tmp_path / "results.csv")
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 5
    assert [(row["scheduler"], row["steps"], row["seeds"], row["status"]) for row in rows[:2]] == [
        ("ddim", "10", "3", "done"),
        ("ddim", "5", "3", "done"),
    ]
    first = rows[1]
    own = diffexp.load(sweep, where={"scheduler": "ddim", "steps": 5})["fid/mnist_cnn"]
    assert float(first["fid/mnist_cnn"]) == pytest.approx(own.mean())
    assert float(first["fid/mnist_cnn/low"]) < float(first["fid/mnist_cnn"]) < float(first["fid/mnist_cnn/high"])
    assert float(first["forward_passes"]) == 5
    assert [tmp_path / folder for folder in first["folders"].split()] == [
        sweep / f"0_ddim_5_{seed}" for seed in range(3)
    ]
    assert (rows[-1]["status"], rows[-1]["error"], rows[-1]["fid/mnist_cnn"]) == ("failed", "ValueError: no, no", "")
    parquet: Any = pd.read_parquet(write_table([sweep], tmp_path / "results.parquet"))
    assert parquet["fid/mnist_cnn"].tolist()[:4] == pytest.approx([float(row["fid/mnist_cnn"]) for row in rows[:4]])
    assert parquet["steps"].dtype.kind in "if" and list(parquet.columns) == list(first)


def test_a_table_to_be_read(sweep: Path, tmp_path: Path) -> None:
    text = write_table([sweep], tmp_path / "results.md").read_text()
    head, rule, *rows = markdown_rows(text)
    assert head[:4] == ["scheduler", "steps", "seeds", "forward passes"] and rule[0] == "---" and rule[1] == "---:"
    column = head.index("fid/mnist\\_cnn ↓")
    assert [row[0] for row in rows] == ["heun", "heun", "ddim", "ddim"], "the best first"
    best = rows[0][column]
    assert re.fullmatch(r"\*\*0\.473 \\\[0\.\d+, 0\.\d+\\\]\*\*", best), best
    assert not any("**" in row[column] for row in rows[1:])
    assert "means over seeds" in text and "1 of 5 cells are not done, and not shown" in text
    assert "Model: mnist" in text and "samples per run: 64" in text


def test_it_is_ordered_by_the_metric_that_is_asked_for(sweep: Path, tmp_path: Path) -> None:
    text = write_table([sweep], tmp_path / "results.md", "psnr").read_text()
    head, _, *rows = markdown_rows(text)
    values = [float(row[head.index("psnr ↑")].strip("*").split()[0]) for row in rows]
    assert values == sorted(values, reverse=True), "of psnr the higher is the better"
    with pytest.raises(InputError, match="no cell has metric=nope \\(available metrics: fid/mnist_cnn, psnr\\)"):
        write_table([sweep], tmp_path / "results.md", "nope")


def test_cells_that_cannot_be_compared_are_not_ranked_against_each_other(tmp_path: Path) -> None:
    for number, (samples, quality) in enumerate(((64, 1.0), (64, 2.0), (256, 0.5), (256, 0.6))):
        config = {"scheduler": {"name": f"s{number % 2}"}, "num_samples": samples}
        made_up_cell(tmp_path / "s", f"{number}_a", config, quality=quality)
    text = write_table([tmp_path / "s"], tmp_path / "results.md").read_text()
    head, _, *rows = markdown_rows(text)
    column = head.index("fid/mnist\\_cnn ↓")
    assert [row[column].startswith("**") for row in rows] == [True, False, True, False], "the best of each condition"
    assert "are not compared" in text


def test_latex(sweep: Path, tmp_path: Path) -> None:
    text = write_table([sweep], tmp_path / "results.tex").read_text()
    assert r"\usepackage{booktabs}" in text and r"fid/mnist\_cnn $\downarrow$" in text and r"95 \% intervals" in text
    assert text.count(r"\textbf{0.473 [") == 1
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns and {line.count(" & ") for line in body.splitlines()[1:]} == {len(columns[1]) - 1}
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


@pytest.mark.parametrize("text", [HOSTILE, "a|b\nc", r"\input{x} 50% $x_1$ #~^&", "|---|", "*a* _b_ `c` [d](e)"])
def test_any_text_stays_text(text: str, tmp_path: Path) -> None:
    for number, name in enumerate((text, "ddim")):
        made_up_cell(tmp_path / "s", f"{number}_a", {"scheduler": {"name": name}})
    rows = markdown_rows(write_table([tmp_path / "s"], tmp_path / "r.md").read_text())
    assert len(rows) == 4 and {len(row) for row in rows} == {len(rows[0])}
    shown = {re.sub(r"\\(.)", r"\1", row[0]) for row in rows[2:]}
    assert shown == {" ".join(text.split()), "ddim"}
    tex = write_table([tmp_path / "s"], tmp_path / "r.tex").read_text()
    names = [line.split(" & ")[0] for line in tex.splitlines() if line.endswith(r"\\")]
    assert len(names) == 3 and not any(re.search(r"(?<!\\)[#%&_]|\\input", name) for name in names)
    with (write_table([tmp_path / "s"], tmp_path / "r.csv")).open(newline="") as file:
        assert {row["scheduler"] for row in csv.DictReader(file)} == {text, "ddim"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value(2.6483, 2.412, 2.903), "2.65 [2.41, 2.90]"),
        (Value(0.012345, 0.0119, 0.0128), "0.01235 [0.01190, 0.01280]"),
        (Value(153.2, 120, 180), "153 [120, 180]"),
        (Value(10.0), "10"),
        (Value(0.123456), "0.1235"),
        (Value(1.0, 1.0, 1.0), "1"),
        (Value(3e8, 2e8, 4e8), "3e+08 [2e+08, 4e+08]"),
    ],
)
def test_a_value_has_the_decimals_of_its_interval(value: Value, text: str) -> None:
    assert value_text(value) == text


def test_the_command(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("r.csv", "r.md", "r.tex", "r.parquet", "r.svg", "r.png", "r.html"):
        assert main([str(sweep), f"out={tmp_path / name}"]) == 0
        assert (tmp_path / name).stat().st_size > 300
    with Image.open(tmp_path / "r.png") as chart:
        assert chart.size[0] == 1440
    capsys.readouterr()
    files = [str(path) for path in sorted(sweep.iterdir())]
    assert main([*files, str(tmp_path / "r.html"), f"out={tmp_path / 'star.md'}"]) == 0, "what the shell's star names"
    assert (tmp_path / "star.md").read_text() == (tmp_path / "r.md").read_text()
    (sweep / "notes.txt").write_text("")
    capsys.readouterr()
    for arguments, message in (
        ([str(sweep), str(sweep / "notes.txt")], "notes.txt is a file; give folders of runs or sweeps"),
        ([str(tmp_path / "r.html")], f"r.html is a file; give its folder, {tmp_path}"),
        ([str(sweep), "out=r.pdf"], "out=r.pdf ends in none of .html, .csv, .parquet, .md, .tex, .svg, .png"),
        ([str(sweep), "out=r.svg", "cost=steps"], "cost=steps is not one of forward_passes, nfe, seconds_per_image"),
        ([str(sweep), "out=r.svg", "x=steps"], "x and by are for a chart of metric=NAME, without cost"),
        ([str(sweep), "out=r.svg", "metric=fid", "x=stepz"], "there is no column stepz; did you mean steps"),
        ([str(sweep), "out=r.svg", "metric=fid", "x=scheduler"], "scheduler has no numbers"),
        ([str(sweep), "out=r.csv", "metric=psnr"], "metric chooses a chart or the order of a table"),
        ([str(sweep), "out=r.md", "cost=nfe"], "cost chooses a chart"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_parquet_says_what_it_needs(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffexp.report.tables.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"Parquet needs pyarrow: pip install diffexp\[parquet\]"):
        write_table([sweep], tmp_path / "r.parquet")


def test_nothing_to_chart_is_said_without_a_metric(tmp_path: Path) -> None:
    made_up_cell(tmp_path / "s", "0_a", {}, status="failed", error="no")
    with pytest.raises(InputError, match="no cell has a metric over cost=\\w+ \\(available metrics: none\\)"):
        diffexp.write_chart([tmp_path / "s"], tmp_path / "c.svg")
    assert "not done" in write_table([tmp_path / "s"], tmp_path / "r.md").read_text()


def test_a_sweep_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffexp import SweepResult

    for number, name in enumerate(("euler", HOSTILE)):
        made_up_cell(tmp_path / "s", f"{number}_a", {"scheduler": {"name": name}}, quality=number + 1.0)
    page = SweepResult(tmp_path / "s")._repr_html_()
    assert "<td" in page and "2 cells (2 done)" in page and HOSTILE not in page and str(escape(HOSTILE)) in page
    assert "0 cells (none has begun)" in SweepResult(tmp_path)._repr_html_()
    monkeypatch.setattr("diffexp.report.tables.MOST_ROWS", 1)
    page = SweepResult(tmp_path / "s")._repr_html_()
    assert page.count("<tr>") == 2 and "1 more cells are not shown" in page
