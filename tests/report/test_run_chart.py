"""``Runs.chart``: one line of Python from the runs to a chart."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

import diffexp
from diffexp.errors import InputError
from tests.made_up import HOSTILE, made_up_cell

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Two schedulers at two numbers of steps, two seeds each; Heun takes two evaluations a step."""
    for scheduler, quality in (("ddim", 3.0), ("heun", 2.0)):
        for steps in (10, 20):
            for seed in (0, 1):
                config = {"scheduler": {"name": scheduler}, "steps": steps, "seed": seed}
                passes = steps * (2 if scheduler == "heun" else 1)
                value = quality - steps / 20 + seed / 100
                made_up_cell(tmp_path / "s", f"{scheduler}-{steps}-{seed}", config, quality=value, passes=passes)
    return tmp_path


def lines(drawing: diffexp.Drawing) -> list[int]:
    """The number of points of each line."""
    groups = ElementTree.fromstring(drawing.svg).iter(f"{SVG}g")
    curves = [group for group in groups if group.get("data-style") is not None]
    return [len(list(curve.iter(f"{SVG}use"))) for curve in curves]


def texts(drawing: diffexp.Drawing) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(drawing.svg).iter(f"{SVG}text")]


def test_a_line_for_each_scheduler_the_mean_over_seeds(outputs: Path) -> None:
    chart = diffexp.load(outputs).chart("fid")
    assert lines(chart) == [2, 2]
    assert {"ddim", "heun", "10", "20", "40"} <= set(texts(chart))
    assert any("fid/mnist_cnn (lower is better)" in text for text in texts(chart))
    assert re.match(r"fid/mnist_cnn over forward passes · mnist · \d+ samples · mean over 2 seeds", chart.title)
    assert len(re.findall(r'class="bars" d="M', chart.svg)) >= 2, "the intervals"


def test_any_column_of_numbers_across_and_any_column_for_a_line(outputs: Path) -> None:
    runs = diffexp.load(outputs)
    chart = runs.chart("psnr", x="steps", by=["model", "scheduler"])
    assert lines(chart) == [2, 2] and "psnr (higher is better)" in texts(chart) and "mnist · ddim" in texts(chart)
    runs["twice"] = 2 * runs["steps"]
    assert {"20", "40"} <= set(texts(runs.chart("fid", x="twice")))
    assert lines(runs.chart("fid", by=[])) == [2, 2], "both schedulers have a run of 20 passes"


def test_runs_that_differ_in_more_are_lines_of_their_own(outputs: Path) -> None:
    for steps in (10, 20):
        config = {"scheduler": {"name": "ddim", "eta": 1.0}, "steps": steps, "prompt": HOSTILE}
        made_up_cell(outputs / "s", f"eta-{steps}", config, quality=1.0, passes=steps)
    chart = diffexp.load(outputs).chart("fid")
    assert lines(chart) == [2, 2, 2]
    assert any("eta 1" in text for text in texts(chart)) and "<script" not in chart.svg


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        ("fdi", {}, "there is no column fdi"),
        ("fid", {"x": "scheduler"}, "scheduler has no numbers"),
        ("device", {}, "device has no numbers"),
        ("fid", {"by": "schedulr"}, "no column schedulr; did you mean scheduler"),
    ],
)
def test_what_cannot_be_drawn(outputs: Path, metric: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        diffexp.load(outputs).chart(metric, **options)  # pyright: ignore[reportArgumentType]


def test_a_part_of_the_table_is_drawn_and_a_joined_one_is_refused(outputs: Path) -> None:
    runs = diffexp.load(outputs)
    assert lines(runs[runs["steps"] == 10].chart("fid")) == [1, 1]  # pyright: ignore[reportAttributeAccessIssue]
    joined = diffexp.Runs(runs.to_dict("list"))
    with pytest.raises(InputError, match="give all folders to diffexp.load"):
        joined.chart("fid")


def test_no_finished_run(tmp_path: Path) -> None:
    made_up_cell(tmp_path / "s", "0", {}, status="failed", error="no luck")
    with pytest.raises(InputError, match="no finished run has|there is no column"):
        diffexp.load(tmp_path).chart("fid")
