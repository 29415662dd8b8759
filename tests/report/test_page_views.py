"""What the page draws from its data: axes, ranking, selection, tables and files, and the address that keeps it all."""

import csv
import json
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from diffexp.report import write_report
from tests.browser import EXECUTABLE, Browser, choose, click, write
from tests.made_up import HOSTILE, made_up_cell, made_up_sweep

pytestmark = [
    pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium on this machine"),
    pytest.mark.usefixtures("quiet"),
]
LAPTOP, PHONE = (1280, 860), (390, 844)
SIZES = pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
MARKS = "[...document.querySelectorAll('#chart-box use')]"
PLACES = f"{MARKS}.map(m => [Number(m.dataset.cell), Number(m.getAttribute('x')), Number(m.getAttribute('y'))])"
ANSWERS = "[...document.querySelectorAll('#answer-table tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
SHOWN = "[...document.querySelectorAll('#result-table tbody tr')].filter(r => !r.hidden).length"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid of three axes; one of them are labels, which are not ranked against each other."""
    sweep = tmp_path_factory.mktemp("sweep")
    return write_report([made_up_sweep(sweep, ["euler", "ddim", "unipc"], [5, 10, 50], labels=[0, 1], pictures=5)])


def options(browser: Browser, label: str) -> list[str]:
    return browser.run(
        f"[...document.querySelectorAll('label')].filter(l => l.firstChild.textContent.trim() === {label!r})"
        ".flatMap(l => [...l.querySelectorAll('option')].map(o => o.textContent))"
    )


def saved(folder: Path, name: str) -> Path:
    """A file that the page is saving."""
    for _ in range(200):
        found = [path for path in folder.glob(name) if path.stat().st_size]
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"{name} is not among {list(folder.iterdir())}")


@SIZES
def test_any_number_is_an_axis(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    axes = ["model evaluations per sample (NFE)", "seconds per sample", "scheduler", "steps", "label", "fid/mnist_cnn"]
    assert options(browser, "X axis") == [*axes, "psnr"]
    for metric in ("fid/mnist_cnn", "seconds_per_image"):
        choose(browser, "Metric", metric)
        for axis in (*axes, "psnr"):
            choose(browser, "X axis", axis)
            places = browser.run(PLACES)
            assert len(places) == 18 and len({tuple(place) for place in places}) > 3
            width = browser.run("document.querySelector('#chart-box svg').viewBox.baseVal.width")
            assert all(0 < x < width and 0 < y < 500 for _, x, y in places)
    assert "no metric of quality" in browser.run("document.querySelector('#answer-note').textContent")
    assert browser.run("document.documentElement.scrollWidth") <= size[0]


def test_points_are_where_their_cost_is_and_axes_may_be_logarithmic(browser: Browser, page: Path):
    browser.open(page, *LAPTOP)
    for log in (True, False):
        assert browser.run("document.querySelector('#log-x').checked") == log
        by_nfe: dict[int, set[float]] = {}
        for cell, x, _ in browser.run(PLACES):
            by_nfe.setdefault([5, 10, 50][cell // 2 % 3], set()).add(x)
        assert all(len(found) == 1 for found in by_nfe.values()), "no point is shifted from its NFE"
        five, ten, fifty = (found.pop() for _, found in sorted(by_nfe.items()))
        assert (ten - five) / (fifty - five) == pytest.approx(0.301 if log else 5 / 45, abs=0.01)
        click(browser, "#log-x")
    write(browser, "#filter", "")
    heading = browser.run(
        "[...document.querySelectorAll('#chart-box .heading, #chart-box .note')].map(t => t.textContent)"
    )
    assert heading == ["fid/mnist_cnn over NFE", "mnist · 64 samples"]
    click(browser, "#intervals")
    assert browser.run("document.querySelectorAll('#chart-box .bars, #chart-box .band').length") == 0
    assert "interval" not in browser.run("document.querySelector('#chart-note').textContent")


def test_the_front_is_that_of_the_lines_that_are_shown(browser: Browser, page: Path):
    browser.open(page, *LAPTOP)
    choose(browser, "Condition", "label 0")
    front = "[...document.querySelectorAll('#chart-box .on-front')].map(m => m.ariaLabel.split(' ')[0])"
    assert browser.run(front) == ["unipc"] * 3
    click(browser, "#legend li:nth-child(3) button")
    assert browser.run(front) == ["ddim"] * 3
    for entry in (1, 2):
        click(browser, f"#legend li:nth-child({entry}) button")
    assert browser.run("document.querySelectorAll('#chart-box .front, #chart-box use').length") == 0
    click(browser, "#legend li:nth-child(1) button")
    assert browser.run(front) == ["euler"] * 3


@SIZES
def test_cells_are_ranked_only_within_a_condition(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    assert "different labels" in browser.run("document.querySelector('.warnings').textContent")
    assert [row[0] for row in browser.run(ANSWERS)] == ["label 0", "5", "10", "50", "label 1", "5", "10", "50"]
    best = "[...document.querySelectorAll('#result-table td.best')].map(c => c.textContent.trim().split(/\\s+/)[0])"
    assert browser.run(best) == ["best"] * 4, "one of each label, in each of two metrics"
    choose(browser, "Condition", "label 1")
    assert len(browser.run(ANSWERS)) == 3 and "label 1" in browser.run(ANSWERS)[0][1]
    assert len(browser.run(PLACES)) == 9
    choose(browser, "Differ only in", "anything")
    rows = "[...document.querySelectorAll('#pair-table tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    compared = browser.run(rows)
    assert compared and all(row[0][-7:] == row[1][-7:] for row in compared), "none of different labels"


@pytest.mark.parametrize(("counts", "warning"), [((8, 8), "fewer than 16"), ((64, 99), "different numbers of samples")])
def test_what_cannot_be_ranked_is_not(browser: Browser, tmp_path: Path, counts: tuple[int, int], warning: str):
    for number, (name, count) in enumerate(zip(("ddim", "euler"), counts)):
        config = {"scheduler": {"name": name}, "steps": 10, "num_samples": count}
        folder = made_up_cell(tmp_path, f"{number}_{name}", config, quality=1 + number)
        if count < 16:
            metrics = json.loads((folder / "metrics.json").read_text())
            (folder / "metrics.json").write_text(
                json.dumps({k: v for k, v in metrics.items() if k[-4:] not in ("/low", "high")})
            )
            (folder / "half_samples.safetensors").unlink()
    browser.open(write_report([tmp_path]), *LAPTOP)
    assert warning in browser.run("document.querySelector('.warnings').textContent")
    assert browser.run("document.querySelectorAll('#result-table .best, #result-table .tie, #grid .best').length") == 0
    rows = browser.run(ANSWERS)
    if counts[0] == counts[1]:
        assert rows == [], "8 samples are too few for a best cell"
    else:
        assert [row[-1] for row in rows if len(row) > 1] == ["the only cell"] * 2
    assert not (tmp_path / "comparison.csv").exists()
    assert "comparison.csv" not in browser.run(
        "document.body.textContent.replace(document.querySelector('#data').textContent, '')"
    )


@SIZES
def test_values_and_ranges_of_all_axes_select_cells(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    browser.run("document.querySelector('#parallel').scrollIntoView({behavior: 'instant'})")
    browser.run("new Promise(r => setTimeout(r, 300))")
    assert browser.run("document.querySelectorAll('#parallel .thread').length") == 18
    selected = "document.querySelector('#selection').textContent"
    click(browser, "#parallel [aria-label='scheduler ddim']")
    assert browser.run(selected).startswith("6 of 18 cells")
    assert (browser.run(SHOWN), browser.run(f"{MARKS}.filter(m => m.matches('.out')).length")) == (6, 12)
    assert browser.run("document.querySelectorAll('#grid tbody tr').length") == 1
    browser.run("document.querySelector(\"#parallel [aria-label='steps 5']\").focus()")
    browser.key("Enter", "\r")
    assert browser.run(selected).startswith("2 of 18 cells")
    assert browser.run("document.activeElement.ariaLabel") == "steps 5", "the focus stays"
    browser.key("Enter", "\r")
    browser.run("document.querySelector(\"#parallel [aria-label='highest fid/mnist_cnn']\").focus()")
    for _ in range(6):
        browser.key("PageDown")
    assert browser.run(selected).startswith(("4 of 18", "3 of 18", "2 of 18")), "those with the lowest values"
    click(browser, "#clear-selection")
    assert browser.run(SHOWN) == 18 and browser.run("document.querySelector('#selection').hidden")
    browser.run("document.querySelector('#parallel').scrollTo(1000, 0)")
    x, top, bottom = browser.run(
        "(() => { document.querySelector('#parallel').scrollIntoView({behavior: 'instant', block: 'center'});"
        "const b = [...document.querySelectorAll('.brush-room')].at(-1).getBoundingClientRect();"
        "return [b.x + b.width / 2, b.top, b.bottom]; })()"
    )
    browser.drag((x, (top + bottom) / 2), (x, bottom - 4))
    assert 0 < browser.run(SHOWN) < 18
    assert browser.run("document.documentElement.scrollWidth") <= size[0]


@SIZES
def test_cells_that_form_no_grid_are_all_shown(browser: Browser, tmp_path: Path, size: tuple[int, int]):
    number = 0
    for name, more in (
        ("ddim", {"eta": 0.0}),
        ("ddim", {"eta": 1.0}),
        ("dpm", {"order": 1}),
        ("dpm", {"order": 2}),
        ("euler", {}),
    ):
        for steps in (10, 20, 40):
            made_up_cell(
                tmp_path, f"{number}_{name}", {"scheduler": {"name": name, **more}, "steps": steps}, pictures=1
            )
            number += 1
    browser.open(write_report([tmp_path]), *size)
    cells = "new Set([...document.querySelectorAll('#grid img')].map(i => i.dataset.cell)).size"
    assert browser.run(cells) == 15
    assert browser.run("document.querySelector('#grid figcaption').textContent") == "eta 0"
    choose(browser, "scheduler.eta", "1")
    assert browser.run(cells) == 3
    choose(browser, "scheduler.eta", "any")
    choose(browser, "Rows", "scheduler.order")
    choose(browser, "Columns", "none")
    assert browser.run(cells) == 15
    labels = browser.run("[...document.querySelectorAll('#legend button')].map(b => b.textContent)")
    assert labels == ["ddim · eta 0", "ddim · eta 1", "dpm · order 1", "dpm · order 2", "euler"]


def test_many_cells_in_one_place_are_shown_when_asked_for(browser: Browser, page: Path):
    browser.open(page, *LAPTOP)
    choose(browser, "Columns", "label")
    choose(browser, "steps", "any")
    choose(browser, "Rows", "steps")
    choose(browser, "scheduler", "any")
    place = "document.querySelectorAll('#grid tbody tr:first-of-type td:first-of-type .cell').length"
    assert browser.run(place) == 3
    browser.run("put({ rows: 'label', columns: 'steps' })")
    browser.run("put({ rows: 'none' })")
    assert browser.run("document.querySelectorAll('#grid figure').length") == 9, "any scheduler, one label"


@SIZES
def test_the_address_keeps_what_is_chosen(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    assert "#" not in browser.run("location.href")
    choose(browser, "Metric", "psnr")
    choose(browser, "X axis", "label")
    click(browser, "#log-y")
    click(browser, "#legend button")
    choose(browser, "Rows", "label")
    choose(browser, "scheduler", "ddim")
    choose(browser, "Samples in a cell", "1")
    click(browser, "#sample-later")
    write(browser, "#tile-size", "160")
    choose(browser, "Differ only in", "steps")
    click(browser, "#pair-table th:nth-child(3) button")
    write(browser, "#filter", "euler 5")
    click(browser, "#result-table th:nth-child(3) button")
    click(browser, "#columns summary")
    click(browser, "#column-0")
    click(browser, "#grid .tile")
    state = (
        "[...document.querySelectorAll('select')].map(s => s.value).concat("
        "[...document.querySelectorAll('input')].map(i => `${i.id} ${i.type === 'checkbox' ? i.checked : i.value}`),"
        "document.querySelector('#legend').textContent, document.querySelectorAll('#chart-box use').length,"
        "document.querySelector('#grid').textContent, document.querySelector('#viewer-title').textContent,"
        "document.querySelector('#pair-table').textContent, document.querySelector('#result-table').innerText)"
    )
    before, address = browser.run(state), browser.run("location.hash")
    browser.reload()
    assert browser.run("new Promise(r => setTimeout(r, 200))") is None
    assert browser.run(state) == before
    browser.run("document.querySelector('#viewer-close').click()")
    browser.run("location.hash = 'metric=fid%2Fmnist_cnn&rows=nonsense&shot=99&at.label=7&pick.steps=%7B&view=nobody'")
    browser.run("new Promise(r => setTimeout(r, 200))")
    assert browser.run("document.querySelector('#chart-box').dataset.metric") == "fid/mnist_cnn"
    assert not browser.run("document.querySelector('#viewer').open")
    browser.run(f"location.hash = {address!r}")
    browser.run("new Promise(r => setTimeout(r, 200))")
    assert browser.run("document.querySelector('#viewer').open")
    browser.run("document.querySelector('#viewer-close').click()")
    click(browser, "nav a[href='#results']")
    assert "psnr" in browser.run("location.hash"), "sections are no part of the address"


def test_tables_and_charts_are_saved(browser: Browser, page: Path, tmp_path: Path):
    browser.open(page, *LAPTOP)
    browser.downloads(tmp_path)
    write(browser, "#filter", "unipc")
    click(browser, "#save-results")
    rows = list(csv.DictReader(saved(tmp_path, "results.csv").open()))
    assert len(rows) == 6 and rows[0]["scheduler"] == "unipc"
    assert float(rows[0]["fid/mnist_cnn/low"]) < float(rows[0]["fid/mnist_cnn"]) < float(rows[0]["fid/mnist_cnn/high"])
    assert rows[0]["commands"].startswith("python -m diffexp 'scheduler=")
    click(browser, "#save-pairs")
    assert {"first", "second", "difference", "better"} <= set(
        next(csv.DictReader(saved(tmp_path, "pairs*.csv").open()))
    )
    click(browser, "#legend button")
    click(browser, "#save-svg")
    picture = ElementTree.parse(saved(tmp_path, "*.svg")).getroot()
    texts = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"fid/mnist_cnn over NFE", "mnist · 64 samples", "ddim · label 0"} <= texts
    assert "euler · label 0" not in texts, "hidden lines are not in the file"
    used = {element.get("href") for element in picture.iter("{http://www.w3.org/2000/svg}use")}
    assert used == {f"#{element.get('id')}" for element in picture.iter() if (element.get("id") or "").startswith("m-")}
    click(browser, "#save-png")
    with Image.open(saved(tmp_path, "*.png")) as image:
        assert image.width == 1720 and len(image.convert("RGB").getcolors(1 << 20) or []) > 50


def test_numbers_are_aligned_on_the_point(browser: Browser, page: Path):
    browser.open(page, *LAPTOP)
    points = browser.run(
        """[...document.querySelectorAll('#result-table tbody tr')].map(row => {
          const heads = [...document.querySelectorAll('#result-table th[data-column]')];
          const cell = row.children[heads.findIndex(h => h.dataset.column === 'fid/mnist_cnn')];
          const text = cell.querySelector('.n').firstChild, at = text.data.indexOf('.'), range = document.createRange();
          if (at < 0) return null;
          range.setStart(text, at);
          range.setEnd(text, at + 1);
          return range.getBoundingClientRect().left;
        })"""
    )
    found = [point for point in points if point is not None]
    # Bold digits of the best value may be a little wider.
    assert len(found) > 10 and max(found) - min(found) < 4
    assert browser.run("document.querySelector('#result-table').parentElement.scrollWidth") <= 1280


@SIZES
def test_columns_are_chosen(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    heads = (
        "[...document.querySelectorAll('#result-table th[data-column]')].filter(h => !h.hidden)"
        ".map(h => h.dataset.column)"
    )
    shown = browser.run(heads)
    assert "status" not in shown, "all cells are done"
    click(browser, "#columns summary")
    click(browser, "#column-3")
    assert set(browser.run(heads)) == {*shown, "status"}
    assert browser.run("document.querySelector('#columns').open"), "the menu stays open"
    click(browser, "#column-3")
    assert browser.run(heads) == shown
    browser.key("Escape")
    assert not browser.run("document.querySelector('#columns').open")
    assert browser.run("document.activeElement.matches('#columns summary')")


@SIZES
def test_every_control_has_a_name_and_hostile_texts_do_not_stick_out(
    browser: Browser, tmp_path: Path, size: tuple[int, int]
):
    for number in range(8):
        config = {
            "scheduler": {"name": f"{HOSTILE}{number % 2}"},
            "steps": 5 + number // 4,
            "x": number // 2 % 2,
            "prompt": HOSTILE,
        }
        made_up_cell(tmp_path, f"{number}_<i>x", config, per_sample=f"m{HOSTILE.replace('/', '_')}")
    browser.open(write_report([tmp_path]), *size)
    choose(browser, "X axis", "scheduler")
    click(browser, "#grid .tile")
    for mode in ("side", "slider", "difference"):
        click(browser, f"[data-mode='{mode}']")
    assert browser.run("document.documentElement.scrollWidth") <= size[0]
    nameless = (
        "[...document.querySelectorAll('select, input, button, a, #charts use, .handle')].filter(e => ![e.labels"
        "?.[0]?.textContent, e.ariaLabel, e.textContent, e.querySelector('img')?.alt].some(t => t?.trim()))"
        ".map(e => e.outerHTML)"
    )
    assert browser.run(nameless) == []
    assert browser.run("document.querySelectorAll('script').length") == 2


def test_five_hundred_cells_open(browser: Browser, tmp_path: Path):
    sweep = made_up_sweep(tmp_path, [f"s{i}" for i in range(20)], [5, 10, 20, 30, 50], labels=range(5), pictures=1)
    browser.open(write_report([sweep]), *LAPTOP)
    assert len(browser.run(PLACES)) == 500
    assert browser.run("document.querySelectorAll('#legend button').length") == 20
    choose(browser, "X axis", "seconds per sample")
    assert len(browser.run(PLACES)) == 500
