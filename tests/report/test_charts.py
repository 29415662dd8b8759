"""Charts: scales, ticks, marks, and a chart as a picture file of its own."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, strategies as st

from diffexp.cli.report import main
from diffexp.drawing.labels import spread
from diffexp.drawing.ticks import log_ticks
from diffexp.report.axes import place_cells
from diffexp.report.charts import Chart, Curve, Point
from diffexp.report.quality import lines_of
from tests.made_up import HOSTILE, cell_of, made_up_sweep


def test_a_chart_is_well_formed_and_holds_every_cell():
    points = [Point(i, 5.0 * 2**i, 1 / (i + 1), low=0.9 / (i + 1), high=1.1 / (i + 1)) for i in range(5)]
    chart = Chart(HOSTILE, "NFE", HOSTILE, [Curve(HOSTILE, 3, points[:3]), Curve("b", 11, points[3:])], points[:2])
    tree = ElementTree.fromstring(str(chart.svg()).replace('href="#', 'ref="#'))
    assert [mark.get("data-cell") for mark in tree.iter("use")] == ["0", "1", "2", "3", "4"]
    assert tree.get("aria-label") == HOSTILE
    assert not list(tree.iter("script"))
    for mark in tree.iter("use"):
        assert 0 < float(mark.get("x", "-1")) < chart.width
        assert 0 < float(mark.get("y", "-1")) < chart.height


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-2.0, 3.0], [1e-9, 1.0], [5.0, 5.0, 5.0], [1e6, 2e6]])
def test_no_values_are_too_strange_for_a_chart(values: list[float]):
    points = [Point(i, i + 1.0, value) for i, value in enumerate(values)]
    places = [float(m.get("y", "nan")) for m in _marks(Chart("t", "x", "y", [Curve("a", 0, points)]))]
    assert all(math.isfinite(place) for place in places)
    assert places == sorted(places, reverse=True), "larger values are further up"


def test_an_interval_that_reaches_zero_does_not_crush_the_rest():
    """The error of a few samples is 1, with an interval from below 0, beside one of 20: a logarithmic axis."""
    points = [Point(0, 5, 20.0, 18.0, 25.0), Point(1, 10, 1.0, -0.2, 3.0), Point(2, 20, 2.0, 1.5, 3.0)]
    _, y = Chart("t", "x", "y", [Curve("a", 0, points)]).scales()
    assert y(1.0) - y(2.0) == pytest.approx((y(1.0) - y(20.0)) * math.log(2) / math.log(20))
    assert 0 < y.low < 1.0 and y(1.0) < y(y.low) <= y.start


def _marks(chart: Chart) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(str(chart.svg()).replace('href="#', 'ref="#')).iter("use"))


@given(st.floats(1e-6, 1e6), st.floats(1.5, 1e8))
def test_ticks_of_logarithmic_axes_are_on_the_axis(low: float, factor: float):
    found = log_ticks(low, low * factor)
    assert len(found) >= 2
    assert all(low * 0.999 <= tick <= low * factor * 1.001 for tick in found)


@pytest.mark.parametrize("cost", ["steps", "max_nfe"])
def test_cells_that_differ_in_what_they_may_cost_are_one_line(cost: str):
    cells = [cell_of({"scheduler.name": name, cost: n}) for name in ("ddim", "heun") for n in (5, 10, 20)]
    lines = lines_of(place_cells(cells))
    assert [(line.name, line.cells) for line in lines] == [("ddim", (0, 1, 2)), ("heun", (3, 4, 5))]


# a file of its own


@given(st.lists(st.floats(0, 400), min_size=1, max_size=12))
def test_labels_keep_their_order_and_do_not_touch(wanted: list[float]):
    found = spread(wanted, 17, 0, 400)
    assert all(-1e-9 <= place <= 400 + 1e-9 for place in found)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert all(found[after] - found[before] >= 17 - 1e-9 for before, after in pairwise(order))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([50, 10, 90], [50, 10, 90]),  # room enough
        ([50, 50], [41.5, 58.5]),
        ([50, 52, 51], [34, 68, 51]),
        ([0, 1], [0, 17]),  # the edge
        ([400], [400]),
    ],
)
def test_labels_are_where_their_lines_end_or_near(wanted: Sequence[float], found: Sequence[float]):
    assert spread(wanted, 17, 0, 400) == pytest.approx(found)


def test_a_chart_of_a_metric_over_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sweep = made_up_sweep(tmp_path / "s", ["euler", "ddim"], [5, 10])
    file = tmp_path / "chart.svg"
    assert main([str(sweep), f"out={file}", "metric=fid", "x=psnr", "by=steps"]) == 0
    svg = "{http://www.w3.org/2000/svg}"
    texts = {element.text for element in ElementTree.parse(file).getroot().iter(f"{svg}text")}
    assert {"psnr", "fid/mnist_cnn (lower is better)", "steps 5", "steps 10"} <= texts
    assert capsys.readouterr().out == f"report: {file}\n"


@pytest.mark.parametrize(
    "names", [["euler", "unipc", "ddim"], ["euler", "a name that is too long for the margin", "ddim"]]
)
def test_a_chart_of_its_own(names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sweep = made_up_sweep(tmp_path / "s", names, [5, 10])
    file = tmp_path / "chart.svg"
    assert main([str(sweep), f"out={file}", "metric=fid/mnist_cnn", "cost=seconds_per_image"]) == 0
    picture = ElementTree.parse(file).getroot()
    svg = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in picture.iter(f"{svg}text")]
    assert {*names, "Pareto front", "95 % interval", "seconds per sample"} <= set(texts)
    assert all(texts.count(name) == 1 for name in names)
    assert len([mark for mark in picture.iter(f"{svg}use") if mark.get("data-cell")]) == 6
    assert "prefers-color-scheme" in file.read_text()
    assert main([str(sweep), f"out={file}", "metric=nope"]) == 2
    assert capsys.readouterr().err == (
        "error: no cell has metric=nope over cost=nfe (available metrics: fid/mnist_cnn, psnr)\n"
    )
    assert main([str(sweep), "metric=psnr"]) == 2
