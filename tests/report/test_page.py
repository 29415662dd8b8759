"""``report.html`` in a browser: every control, at the width of a laptop and of a phone, in light and dark."""

import os
from pathlib import Path

import pytest
import torch

from diffexp.report import write_report
from tests.browser import EXECUTABLE, Browser, choose, click, title, write
from tests.made_up import made_up_cell, made_up_sweep

pytestmark = [
    pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium on this machine"),
    pytest.mark.usefixtures("quiet"),
]
LAPTOP, PHONE = (1366, 860), (390, 844)
SIZES = pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sweep = tmp_path_factory.mktemp("sweep")
    made_up_sweep(sweep, ["euler", "ddim", "unipc"], [5, 10], labels=[0, 1], pictures=5)
    failed = {"scheduler": {"name": "heun"}, "steps": 5, "label": 0}
    made_up_cell(sweep, "90_x", failed, status="failed", error="<script>alert(1)</script>", pictures=0)
    return write_report([sweep])


def pictures(browser: Browser) -> list[list[str]]:
    """The grid as it is shown: a list for each row, of what its cells say."""
    return browser.run(
        "[...document.querySelectorAll('#grid tbody tr')].map(row => [...row.querySelectorAll('td')].map("
        "cell => cell.querySelector('img')?.alt ?? cell.textContent))"
    )


@SIZES
def test_nothing_sticks_out_and_everything_is_loaded(browser: Browser, page: Path, size: tuple[int, int]):
    for dark in (False, True):
        browser.open(page, *size, dark=dark)
        assert browser.run("document.documentElement.scrollWidth") <= size[0]
        box = "document.querySelector('#answer-box')"
        assert browser.run(f"{box}.scrollWidth <= {box}.clientWidth"), "the table of budgets is cut"
        browser.run("window.scrollTo(0, 1e6)")
        paper = browser.run("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(18, 21, 26)") == dark
    assert browser.run("document.querySelectorAll('.chart-box .series').length") == 6
    folder = os.environ.get("REPORT_PICTURES")  # to look at it: a folder for screenshots
    if folder:
        browser.picture(Path(folder) / f"report-{size[0]}.png", whole=True)


@SIZES
def test_metric_and_cost_change_chart_answers_and_captions(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    shown = "[...document.querySelectorAll('.chart-box:not([hidden])')].map(b => b.dataset.metric + b.dataset.x)"
    assert browser.run(shown) == ["fid/mnist_cnnnfe"]
    caption = "document.querySelector('#grid .caption').textContent"
    before = browser.run(caption)
    choose(browser, "Metric", "psnr")
    choose(browser, "X axis", "seconds per sample")
    assert browser.run(shown) == ["psnrseconds_per_image"]
    assert browser.run(caption) != before
    assert browser.run("document.querySelector('[data-answers]:not([hidden])').dataset.answers") == "psnr"
    assert browser.run("document.querySelector('#answer-table th').textContent") == "≤ seconds per sample"
    # The front ends with the best of all; psnr grows here with what fid measures.
    assert browser.run("document.querySelectorAll('.chart-box:not([hidden]) .on-front').length") >= 1


@SIZES
def test_the_legend_hides_lines(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    hidden = "6 - document.querySelectorAll('.series').length"
    click(browser, "#legend button")
    assert browser.run(hidden) == browser.run("document.querySelectorAll('.chart-box').length")
    assert browser.run("document.querySelector('#legend button').ariaPressed") == "false"
    click(browser, "#legend button")
    assert browser.run(hidden) == 0


def test_a_point_tells_what_it_is(browser: Browser, page: Path):
    browser.open(page, *LAPTOP)
    x, y = browser.run(
        "(() => { const b = document.querySelector('.chart-box use').getBoundingClientRect();"
        " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert "euler" in browser.run("document.querySelector('#tip').textContent")
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=5, y=5)
    assert browser.run("document.querySelector('#tip').hidden")


@SIZES
def test_rows_columns_and_selectors(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    assert pictures(browser)[0] == ["euler · 5 steps · label 0, sample 0", "euler · 10 steps · label 0, sample 0"]
    assert pictures(browser)[3] == ["failed: <script>alert(1)</script>", "no cell"]
    choose(browser, "label", "1")
    assert pictures(browser)[1][0] == "ddim · 5 steps · label 1, sample 0"
    choose(browser, "Rows", "label")
    assert [row[0].split(",")[0] for row in pictures(browser)] == [
        "euler · 5 steps · label 0",
        "euler · 5 steps · label 1",
    ]
    choose(browser, "Rows", "steps")
    assert pictures(browser)[1][0] == "euler · 10 steps · label 0, sample 0", "rows and columns changed places"
    choose(browser, "Columns", "none")
    flow = "[...document.querySelectorAll('#grid figcaption')].map(f => f.textContent)"
    assert browser.run(flow) == ["euler · 5 steps · label 1", "euler · 10 steps · label 1"]
    choose(browser, "Rows", "none")
    assert len(browser.run(flow)) == 13


@SIZES
def test_samples_and_their_size(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    count = "document.querySelectorAll('#grid td:first-of-type .tiles')[0].querySelectorAll('img').length"
    choose(browser, "Samples in a cell", "1")
    assert browser.run(count) == 1
    click(browser, "#sample-later")
    assert pictures(browser)[0][0].endswith("sample 1")
    for _ in range(2):
        click(browser, "#sample-earlier")
    assert pictures(browser)[0][0].endswith("sample 4")
    choose(browser, "Samples in a cell", "4")
    write(browser, "#tile-size", "160")
    assert browser.run("document.querySelector('#grid .tile').getBoundingClientRect().width") == 160
    loaded = "new Promise(r => setTimeout(() => r(document.querySelector('#grid .tile img').naturalWidth), 300))"
    browser.run("document.querySelector('#grid').scrollIntoView()")
    assert browser.run(loaded) == 32


@SIZES
def test_the_viewer_flips_between_cells(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    click(browser, "#grid .tile")
    assert title(browser) == "euler · 5 steps · label 0, sample 0"
    for key, text, expected in (
        ("ArrowRight", "", "euler · 10 steps · label 0, sample 0"),
        ("ArrowRight", "", "euler · 5 steps · label 0, sample 0"),
        ("ArrowDown", "", "ddim · 5 steps · label 0, sample 0"),
        (".", ".", "ddim · 5 steps · label 0, sample 1"),
        (",", ",", "ddim · 5 steps · label 0, sample 0"),
        ("ArrowUp", "", "euler · 5 steps · label 0, sample 0"),
        ("ArrowUp", "", "heun · 5 steps · label 0, sample 0"),
    ):
        browser.key(key, text)
        assert title(browser) == expected
    assert browser.run("document.querySelector('#viewer-empty').textContent") == "failed: <script>alert(1)</script>"
    browser.key("ArrowLeft")
    assert title(browser).startswith("heun · 5"), "there is no other in this row"
    browser.key("ArrowDown")
    browser.key("p", "p")
    browser.key("ArrowDown")
    for expected in ("euler", "ddim", "euler"):
        browser.key(" ", " ")
        assert title(browser).startswith(expected), "space flips to the pinned cell and back"
    browser.run("document.querySelector('#viewer-close').click()")
    assert not browser.run("document.querySelector('#viewer').open")


@SIZES
def test_the_buttons_of_the_viewer(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    click(browser, "#grid .tile")
    assert browser.run("document.querySelector('[data-go=\"flip\"]').disabled")
    for button, expected in (
        ("right", "euler · 10 steps · label 0, sample 0"),
        ("down", "ddim · 10 steps · label 0, sample 0"),
        ("pin", "ddim · 10 steps · label 0, sample 0"),
        ("left", "ddim · 5 steps · label 0, sample 0"),
        ("later", "ddim · 5 steps · label 0, sample 1"),
        ("earlier", "ddim · 5 steps · label 0, sample 0"),
        ("flip", "ddim · 10 steps · label 0, sample 0"),
        ("up", "euler · 10 steps · label 0, sample 0"),
    ):
        click(browser, f'[data-go="{button}"]')
        assert title(browser) == expected
    link = browser.run("document.querySelector('#viewer-link').href")
    assert link.endswith("/2_euler_10/")
    click(browser, "#viewer-close")
    assert not browser.run("document.querySelector('#viewer').open")


@SIZES
def test_pairs_can_be_chosen_and_sorted(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    rows = "[...document.querySelectorAll('#pair-table tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    assert len(browser.run(rows)) == 12, "three schedulers, at two step counts, of two labels"
    choose(browser, "Differ only in", "anything")
    assert len(browser.run(rows)) == 30, "of six cells of each label; labels are not compared"
    options = "[...document.querySelectorAll('#pair-controls label')].map(l => l.textContent).join()"
    assert "label" not in browser.run(options).partition("One of them is")[0]
    choose(browser, "Differ only in", "steps")
    found = browser.run(rows)
    assert len(found) == 6 and all("5 steps" in row[0] and "10 steps" in row[1] for row in found)
    assert all("10 steps" in row[6] for row in found), "more steps are better here"
    choose(browser, "One of them is", "ddim · 5 steps · label 0")
    assert len(browser.run(rows)) == 1
    choose(browser, "One of them is", "any cell")
    click(browser, "#pair-table th:nth-child(3) button")
    ascending = [float(row[2]) for row in browser.run(rows)]
    click(browser, "#pair-table th:nth-child(3) button")
    assert [float(row[2]) for row in browser.run(rows)] == sorted(ascending, reverse=True) != ascending
    choose(browser, "Differ only in", "scheduler")
    everything = len(browser.run(rows))
    click(browser, "#only-real")
    assert browser.run("document.querySelector('#only-real').checked")
    assert len(browser.run(rows)) <= everything
    click(browser, "#only-real")
    click(browser, "#pair-table td button")
    assert browser.run("document.querySelector('#viewer').open")


@SIZES
def test_results_are_sorted_and_filtered(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    column = browser.run(
        "[...document.querySelectorAll('#result-table thead th')].findIndex(h => h.textContent.includes('fid'))"
    )
    values = (
        "[...document.querySelectorAll('#result-table tbody tr')].filter(r => !r.hidden)"
        f".map(r => r.children[{column}].dataset.sort)"
    )
    for way in (1, -1):
        click(browser, f"#result-table thead th:nth-child({column + 1}) button")
        found = browser.run(values)
        assert found[-1] == "", "the cell without a value is last either way"
        assert [float(v) for v in found[:-1]] == sorted((float(v) for v in found[:-1]), reverse=way < 0)
    write(browser, "#filter", "unipc 10")
    assert len(browser.run(values)) == 2


def test_answers_open_their_cell(browser: Browser, page: Path):
    browser.open(page, *LAPTOP)
    click(browser, "[data-answers]:not([hidden]) [data-open]")
    assert title(browser).startswith("unipc · 5 steps")


def test_very_many_pairs_are_shown_bit_by_bit(browser: Browser, tmp_path: Path):
    sweep = made_up_sweep(tmp_path, [f"s{i}" for i in range(12)], [5, 10], pictures=1)
    browser.open(write_report([sweep]), *LAPTOP)
    choose(browser, "Differ only in", "anything")
    count = "document.querySelectorAll('#pair-table tbody tr').length"
    assert browser.run(count) == 201
    click(browser, "#all-pairs")
    assert browser.run(count) == 24 * 23 // 2


@SIZES
def test_points_one_cell_and_no_metrics(browser: Browser, tmp_path: Path, size: tuple[int, int]):
    for number in range(2):
        made_up_cell(tmp_path / "points", f"{number}_a", {"steps": 5 + number}, points=torch.rand(30, 2) + number)
    browser.open(write_report([tmp_path / "points"]), *size)
    click(browser, "#grid .tile")
    assert title(browser) == "5 steps, all points"
    made_up_cell(tmp_path / "one", "0_a", {"scheduler": {"name": "ddim"}, "steps": 5}, status="running", pictures=0)
    browser.open(write_report([tmp_path / "one"]), *size)
    assert browser.run("document.querySelector('#grid .empty').textContent") == "running"
    assert browser.run("document.documentElement.scrollWidth") <= size[0]


def test_long_names_do_not_stick_out_on_a_phone(browser: Browser, tmp_path: Path):
    names = [f"scheduler_{letter}_with_a_name_that_takes_more_room_than_most" for letter in "ab"]
    browser.open(write_report([made_up_sweep(tmp_path, names, [5, 10])]), *PHONE)
    assert browser.run("document.documentElement.scrollWidth") <= PHONE[0]


def test_large_pictures_are_shown_from_their_files_where_these_are(browser: Browser, tmp_path: Path):
    folder = made_up_cell(tmp_path, "0_a", {"steps": 5}, side=700, pictures=1)
    made_up_cell(tmp_path, "1_a", {"steps": 6}, side=700, pictures=1)
    noise = torch.randint(0, 255, (700, 700), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    from PIL import Image

    Image.fromarray(noise.numpy()).save(folder / "samples" / "000000.png")
    browser.open(write_report([tmp_path]), *LAPTOP)
    width = "new Promise(r => setTimeout(() => r(document.querySelector('#viewer-image').naturalWidth), 500))"
    click(browser, "#grid .tile")
    assert browser.run(width) == 700
    alone = tmp_path / "elsewhere" / "page.html"
    alone.parent.mkdir()
    (tmp_path / "report.html").rename(alone)
    browser.open(alone, *LAPTOP)
    click(browser, "#grid .tile")
    assert browser.run(width) == 192, "the picture in the page, where the file cannot be had"
    browser.problems.clear()  # the file that is not there
