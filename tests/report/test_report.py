"""Reports of sweeps that were never run: axes, pairs, charts, pictures and the page itself."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
from hypothesis import given, strategies as st

from diffexp.cli.report import main
from diffexp.errors import InputError
from diffexp.report import write_report
from diffexp.report.axes import ABSENT, place_cells
from diffexp.report.collect import collect
from diffexp.report.comparison import (
    compare,
    holm,
    p_value,
    read_all_halves,
    t_quantile,
)
from diffexp.report.content import Report
from diffexp.report.page import page_html
from diffexp.report.quality import points_of
from diffexp.report.thumbnails import make_thumbnails
from diffexp.sweeps.results import read_cells
from diffexp.sweeps.values import Quality, metric_names, pareto_front, qualities, value_of
from tests.made_up import HOSTILE, cell_of, made_up_cell, made_up_sweep

FID = Quality("fid/mnist_cnn", higher=False)


def axes(*configs: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    placement = place_cells([cell_of(config, f"sweep/{number}") for number, config in enumerate(configs)])
    return {axis.name: axis.values for axis in placement.axes}


class Page(HTMLParser):
    """What a browser would make of a page: tags, attributes, texts."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self._inside == "script" else self.texts).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


# axes


def test_axes_are_what_was_varied_in_the_order_of_reading():
    configs = [{"seed": 0, "steps": s, "scheduler.name": n, "name": n} for n in ("euler", "ddim") for s in (10, 5, 50)]
    assert axes(*configs) == {"scheduler": ("euler", "ddim"), "steps": ("5", "10", "50")}


def test_options_of_one_choice_are_no_axes_unless_they_were_varied_within_it():
    one = {"scheduler.name": "ddim", "scheduler.eta": 0.0}
    other = {"scheduler.name": "unipc", "scheduler.order": 2}
    assert axes(one, other) == {"scheduler": ("ddim", "unipc")}
    assert axes(one, {**one, "scheduler.eta": 1.0}, other) == {
        "scheduler": ("ddim", "unipc"),
        "scheduler.eta": ("0", "1", ABSENT),
    }


def test_classes_of_diffusers_are_schedulers_by_their_own_names():
    names = ("diffusers.DDIMScheduler", "diffusers.HeunDiscreteScheduler")
    configs = [{"scheduler.name": "diffusers", "scheduler._target_": name} for name in names]
    assert axes(*configs) == {"scheduler": ("DDIMScheduler", "HeunDiscreteScheduler")}


def test_lists_are_values_and_keys_that_change_together_are_one_axis():
    lists = ([999, 500], [999, 700, 300])
    configs = [{"grid.name": "auto", "grid.timesteps": values, "steps": len(values)} for values in lists]
    assert axes(*configs) == {"grid.timesteps": ("[999, 500]", "[999, 700, 300]")}


def test_runs_that_nothing_tells_apart_are_told_by_their_folders():
    config = {"steps": 5}
    placement = place_cells(
        [cell_of(config, "monday/0_a"), cell_of(config, "friday/0_a"), cell_of({"steps": 9}, "friday/1_a")]
    )
    assert [axis.name for axis in placement.axes] == ["steps", "sweep"]
    assert len(set(placement.places)) == 3
    assert axes({}, {}) == {"run": ("0", "1")}
    assert axes({}) == {}


@given(st.lists(st.fixed_dictionaries({"steps": st.integers(1, 3), "x": st.text(max_size=2)}), min_size=1, max_size=6))
def test_every_cell_has_a_place_of_its_own(configs: list[dict[str, Any]]):
    placement = place_cells([cell_of(config, f"sweep/{number}") for number, config in enumerate(configs)])
    assert len(set(placement.places)) == len(configs)


# values


def test_ends_of_intervals_are_no_metrics_and_costs_no_quality(tmp_path: Path):
    made_up_cell(tmp_path, "0_a", {"steps": 5})
    (found,) = read_cells(tmp_path)
    assert metric_names([found]) == ["nfe", "seconds_per_image", "fid/mnist_cnn", "psnr"]
    assert qualities([found]) == [FID, Quality("psnr", higher=True)]
    value = value_of(found, "fid/mnist_cnn")
    assert value is not None and value.low is not None and value.low < value.value


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(-5, 5)), max_size=12), st.booleans())
def test_nothing_beats_the_front(points: list[tuple[float, float]], higher: bool):
    front = pareto_front(points, higher)
    sign = -1 if higher else 1
    assert [points[i][0] for i in front] == sorted({points[i][0] for i in front})
    for i, (cost, value) in enumerate(points):
        beaten = any(
            c <= cost and sign * v <= sign * value and (c, v) != (cost, value)
            for j, (c, v) in enumerate(points)
            if j != i
        )
        twin = any(points[j] == points[i] for j in front)
        assert (i in front) == (not beaten and (not twin or i in front))
        assert beaten or twin


# pairs


def test_holm_multiplies_by_the_number_of_those_still_open():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(("freedom", "t"), [(15, 2.1314), (63, 1.9983), (999, 1.9623)])
def test_few_samples_are_held_against_students_distribution(freedom: int, t: float):
    """The two-sided quantiles at 5 %, as in any table of it."""
    assert t_quantile(freedom) == pytest.approx(t, rel=1e-3)
    assert t_quantile(freedom) == pytest.approx(t, rel=3e-5), "exact, as far as the table has digits"
    assert p_value(t_quantile(freedom), 1.0, freedom) == pytest.approx(0.05)


def test_cells_with_another_number_of_splits_are_not_compared(tmp_path: Path):
    for number in range(3):
        made_up_cell(tmp_path, f"{number}_a", {"x": number})
    cells = read_cells(tmp_path)
    halves = read_all_halves(cells)
    halves[2] = {name: values[:, :100] for name, values in halves[2].items()}
    (only,) = compare(cells, halves, FID, [(0, 1), (0, 2), (1, 2)])
    assert (only.first, only.second) == (0, 1)


def test_a_cell_that_is_not_done_is_on_no_chart(tmp_path: Path):
    made_up_cell(tmp_path, "0_a", {"steps": 5, "x": 0}, quality=1.0)
    made_up_cell(tmp_path, "1_a", {"steps": 5, "x": 1}, quality=0.1, status="interrupted")
    assert list(points_of(read_cells(tmp_path), FID, "nfe")) == [0]


def test_a_small_difference_from_the_same_noise_is_real_and_none_is_not(tmp_path: Path):
    for number, quality in enumerate((1.0, 1.06, 1.0)):
        made_up_cell(tmp_path, f"{number}_a", {"steps": 5, "x": number}, quality=quality)
    cells = read_cells(tmp_path)
    first, second = value_of(cells[0], FID.name), value_of(cells[1], FID.name)
    assert first and second and first.high and second.low and first.high > second.low, "alone, they overlap"
    found = compare(cells, read_all_halves(cells), FID, [(0, 1), (0, 2), (0, 0)])
    assert found[0].difference == pytest.approx(first.value - second.value)
    assert found[0].p_holm < 0.001
    assert found[0].low < found[0].difference < found[0].high < 0
    assert found[1].p > 0.01 and found[1].low < 0 < found[1].high
    assert (found[2].difference, found[2].p) == (0.0, 1.0)


def test_what_cannot_be_compared_is_not(tmp_path: Path):
    made_up_cell(tmp_path, "0_a", {"x": 0})
    made_up_cell(tmp_path, "1_a", {"x": 1, "num_samples": 99})
    made_up_cell(tmp_path, "2_a", {"x": 2}, status="failed", error="no")
    cells = read_cells(tmp_path)
    assert compare(cells, read_all_halves(cells), FID, [(0, 1), (0, 2), (1, 2)]) == []


# pictures


def test_small_pictures_are_embedded_as_they_are_and_large_ones_smaller(tmp_path: Path):
    for name, side in (("small", 32), ("large", 512)):
        made_up_cell(tmp_path / name, "0_a", {}, side=side, pictures=1)
    small, large = (make_thumbnails(read_cells(tmp_path / name)) for name in ("small", "large"))
    assert (small.side, large.side) == (32, 512)
    assert small.images[0][0] is not None and small.images[0][0].startswith("data:image/png")
    assert large.images[0][0] is not None


def test_the_budget_takes_whole_samples_away_and_says_so(tmp_path: Path):
    made_up_sweep(tmp_path, ["a", "b"], [5, 10], pictures=6)
    cells = read_cells(tmp_path)
    whole, cut = make_thumbnails(cells), make_thumbnails(cells, budget=1000)
    assert (len(whole.samples), whole.available) == (6, 6)
    assert 1 <= len(cut.samples) < 6
    assert all(len(found) == len(cut.samples) for found in cut.images)
    assert cut.available == 6


def test_broken_pictures_are_left_out(tmp_path: Path):
    folder = made_up_cell(tmp_path, "0_a", {}, pictures=2)
    (folder / "samples" / "000001.png").write_bytes(b"")
    made_up_cell(tmp_path, "1_a", {"steps": 3}, pictures=1)
    (folder / "samples" / "000000.png").unlink()
    (folder / "samples" / "000000.png").mkdir()
    assert make_thumbnails(read_cells(tmp_path)).images[0][0] is None


def test_points_are_drawn_on_the_same_axes(tmp_path: Path):
    cloud = torch.rand(50, 2)
    for number, shift in enumerate((0.0, 0.0, 3.0)):
        made_up_cell(tmp_path, f"{number}_a", {"steps": number}, points=cloud + shift)
    first, second, far = (found[0] for found in make_thumbnails(read_cells(tmp_path)).images)
    assert first == second != far


# the page


def test_a_page_of_a_sweep(tmp_path: Path):
    sweep = made_up_sweep(tmp_path / "a sweep", ["euler", "ddim"], [5, 10])
    made_up_cell(sweep, "4_c", {"scheduler": {"name": "heun"}, "steps": 5}, status="failed", error="ValueError: no")
    made_up_cell(sweep, "5_c", {"scheduler": {"name": "heun"}, "steps": 10}, status="missing")
    out = write_report([sweep])
    assert out == sweep / "report.html"
    page = Page(out)
    data = page.data
    assert [axis["name"] for axis in data["axes"]] == ["scheduler", "steps"]
    assert [cell["status"] for cell in data["cells"]] == ["done"] * 4 + ["failed", "missing"]
    assert data["cells"][4]["error"] == "ValueError: no"
    assert data["cells"][1]["label"] == "euler · 10 steps"
    assert all(cell["pictures"][0].startswith("data:image/png") for cell in data["cells"][:4])
    for cell in data["cells"]:
        assert (sweep / unquote(cell["link"])).is_dir(), "links lead from the page to the run"
    text = " ".join(page.texts)
    assert "1 failed" in text and "1 missing" in text and "ValueError: no" in text
    assert page.all("svg") and page.all("dialog")


def test_cells_that_never_began_are_in_their_place(tmp_path: Path):
    made_up_sweep(tmp_path, ["euler", "ddim"], [5])
    words = [["scheduler=euler", "steps=5"], ["scheduler=ddim", "steps=5"], ["scheduler=ddim", "steps=9"]]
    (tmp_path / "sweep.json").write_text(json.dumps({"cells": words}))
    data = Page(write_report([tmp_path])).data
    assert [cell["label"] for cell in data["cells"]] == ["euler · 5 steps", "ddim · 5 steps", "ddim · 9 steps"]
    assert (data["cells"][2]["status"], data["cells"][2]["link"]) == ("missing", "")


def test_pairs_are_also_written_as_a_table(tmp_path: Path):
    sweep = made_up_sweep(tmp_path, ["euler", "ddim"], [5])
    write_report([sweep])
    (row, *_) = csv.DictReader((sweep / "comparison.csv").open())
    assert (row["metric"], row["first"], row["second"]) == ("fid/mnist_cnn", "0_euler_5", "1_ddim_5")
    assert row["better"] == "1_ddim_5" and row["noise"] == "same"
    assert float(row["low"]) < float(row["difference"]) < float(row["high"])


def test_nothing_is_asked_of_the_network(tmp_path: Path):
    page = Page(write_report([made_up_sweep(tmp_path, ["euler"], [5, 10])]))
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "action"):
            assert not (attributes.get(name) or "").startswith(("http:", "https:", "//"))
    assert "http://" not in "".join(page.scripts[1:]) and "https://" not in "".join(page.scripts[1:])
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_hostile_texts_stay_texts(tmp_path: Path):
    sweep = tmp_path / "<b>&amp; sweep"
    for number in range(2):
        config = {"scheduler": {"name": f"{HOSTILE}{number}"}, "steps": 5, "prompt": HOSTILE, "x": f"{number}{HOSTILE}"}
        made_up_cell(sweep, f"{number}_<i>x", config, per_sample=f"m{HOSTILE.replace('/', '_')}")
    made_up_cell(sweep, "2_x", {"scheduler": {"name": "a"}, "steps": 5}, status=HOSTILE, error=HOSTILE)
    page = Page(write_report([sweep]))
    assert len(page.scripts) == 2, "the data and the script, nothing else"
    assert not page.all("img")[1:], "one image in all of the page: the viewer's"
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    assert page.data["cells"][2]["error"] == HOSTILE
    assert HOSTILE + "0" in page.data["axes"][0]["values"]
    assert not page.all("b") and not page.all("i")
    assert str(1093 * 3511) not in "".join(page.texts), "no template in a text is run"


def test_one_cell_without_anything(tmp_path: Path):
    made_up_cell(tmp_path, "0_a", {"scheduler": {"name": "ddim"}, "steps": 5}, status="running", pictures=0)
    page = Page(write_report([tmp_path]))
    assert page.data["axes"] == [] and page.data["cells"][0]["label"] == "ddim · 5 steps"
    assert "No cell has a metric of quality" in " ".join(page.texts)
    assert not (tmp_path / "comparison.csv").exists()


def test_five_hundred_cells(tmp_path: Path):
    sweep = made_up_sweep(tmp_path, [f"s{i}" for i in range(20)], [5, 10, 20, 30, 50], labels=range(5), pictures=1)
    report = Report(collect([sweep]), sweep / "report.html")
    html = page_html(report)
    assert len(report.cells) == 500
    assert html.count('data-cell="') == 500 and len(report.charts) == 4
    assert len(html) < 6_000_000
    assert len(report.legend) == 20, "a look for each scheduler, not for each line"


def test_several_sweeps_and_runs_together(tmp_path: Path):
    monday = made_up_sweep(tmp_path / "monday", ["euler"], [5, 10])
    friday = made_up_sweep(tmp_path / "friday", ["euler", "ddim"], [5])
    single = made_up_cell(tmp_path, "alone", {"scheduler": {"name": "heun"}, "steps": 5})
    cells = collect([monday, friday, single, monday])
    assert len(cells) == 5
    assert [axis.name for axis in place_cells(cells).axes] == ["scheduler", "steps", "sweep"]
    assert len(collect([tmp_path])) == 5, "found by the folder above them too"
    out = write_report([monday, friday], tmp_path / "both" / "page.html")
    data = Page(out).data
    assert (out.parent / data["cells"][0]["link"]).resolve() == (monday / "0_euler_5").resolve()


def test_a_folder_without_runs_is_a_mistake(tmp_path: Path):
    with pytest.raises(InputError, match="contains no runs"):
        write_report([tmp_path])


# the command


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sweep = made_up_sweep(tmp_path / "s", ["euler"], [5])
    assert main([str(sweep), f"out={tmp_path / 'page.html'}"]) == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'page.html'}\n"
    assert (tmp_path / "page.html").is_file()
    assert main(["--help"]) == 0


@pytest.mark.parametrize(
    "words", [[], ["nowhere"], ["--out", "x"], ["out=x.html"], ["."], [".", "out=x.png"], [".", "out=nowhere/x.svg"]]
)
def test_mistakes_are_one_line(words: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    told = capsys.readouterr()
    assert (told.err or told.out).count("\n") == 1
