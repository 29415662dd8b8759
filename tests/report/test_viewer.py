"""The viewer of the page: two cells against each other, how a sample came about, the command, the keyboard."""

from pathlib import Path

import pytest
from PIL import Image

from diffexp.report import write_report
from tests.browser import EXECUTABLE, Browser, choose, click, title
from tests.made_up import made_up_cell, made_up_sweep

pytestmark = [
    pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium on this machine"),
    pytest.mark.usefixtures("quiet"),
]
LAPTOP, PHONE = (1280, 860), (390, 844)
SIZES = pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
MODE = "document.querySelector('#viewer-modes [aria-checked=true]').textContent"
SHOTS = "[...document.querySelectorAll('#shots figure')].filter(f => !f.hidden).map(f => f.querySelector('img').alt)"
LATER = "new Promise(r => setTimeout(r, 300))"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cells with images; the first has the pictures of its trajectory."""
    sweep = made_up_sweep(tmp_path_factory.mktemp("sweep"), ["euler", "ddim"], [5, 10], pictures=3)
    for number, kind in enumerate(("png", "gif")):
        Image.new("L", (60 + number, 20), 120).save(sweep / "0_euler_5" / f"trajectory.{kind}")
    # The left half of a sample differs by 51 of 255.
    with Image.open(sweep / "0_euler_5" / "samples" / "000000.png") as image:
        other = image.copy()
    value = other.getpixel((0, 0))
    assert isinstance(value, int)
    other.paste((value + 51) % 256 if value < 200 else value - 51, (0, 0, 16, 32))
    other.save(sweep / "2_ddim_5" / "samples" / "000000.png")
    return write_report([sweep])


def box(browser: Browser, selector: str) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of an element in the window."""
    return browser.run(
        f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{ block: 'center', behavior:"
        " 'instant' }); const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })()"
    )


@SIZES
def test_two_cells_side_by_side(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    click(browser, "#grid .tile")
    assert browser.run(SHOTS) == ["euler · 5 steps, sample 0"]
    click(browser, "[data-mode='side']")
    assert browser.run(SHOTS) == ["euler · 5 steps, sample 0", "ddim · 5 steps, sample 0"], "the next one is compared"
    first, second = box(browser, "#viewer-image"), box(browser, "#viewer-other")
    assert first[2] <= second[0] and first[1] == second[1], "beside each other, at the same height"
    click(browser, "[data-go='later']")
    assert browser.run(SHOTS) == ["euler · 5 steps, sample 1", "ddim · 5 steps, sample 1"]
    choose(browser, "Compare with", "ddim · 10 steps")
    assert browser.run(SHOTS)[1] == "ddim · 10 steps, sample 1"
    assert "adjusted p" in browser.run("document.querySelector('#viewer-facts').textContent")
    click(browser, "[data-go='flip']")
    assert browser.run(SHOTS) == ["ddim · 10 steps, sample 1", "euler · 5 steps, sample 1"]
    choose(browser, "Compare with", "no other cell")
    assert browser.run(SHOTS) == ["ddim · 10 steps, sample 1"]
    assert browser.run("document.documentElement.scrollWidth") <= size[0]
    assert browser.run("document.querySelector('#viewer').scrollWidth <= document.querySelector('#viewer').clientWidth")


@SIZES
def test_a_slider_between_two_cells(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    click(browser, "#grid .tile")
    click(browser, "[data-mode='slider']")
    split = "Number(document.querySelector('#split').value)"
    clip = "getComputedStyle(document.querySelector('#viewer-other')).clipPath"
    assert (browser.run(split), browser.run(clip)) == (50, "inset(0px 0px 0px 50%)")
    assert box(browser, "#viewer-image") == box(browser, "#viewer-other"), "one over the other"
    left, top, right, bottom = box(browser, "#viewer-image")
    middle = (top + bottom) / 2
    browser.drag(((left + right) / 2, middle), (left + 0.25 * (right - left), middle))
    assert browser.run(split) == pytest.approx(25, abs=2)
    assert title(browser).startswith("euler · 5"), "dragging shows no other cell"
    browser.run("document.querySelector('#split').focus()")
    before = browser.run(split)
    browser.key("ArrowRight")
    assert title(browser).startswith("euler · 5"), "the keys of the slider are its own"
    browser.run("(r => { r.value = 80; r.dispatchEvent(new Event('input')); })(document.querySelector('#split'))")
    assert before != 80 and browser.run(clip) == "inset(0px 0px 0px 80%)"


@SIZES
def test_the_difference_of_two_cells(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    click(browser, "#grid .tile")
    click(browser, "[data-mode='difference']")
    browser.run(LATER)
    text = browser.run("document.querySelector('#difference-text').textContent")
    assert text.startswith("rms difference 0.141, largest 0.2,"), "half of the pixels, by 0.2"
    assert browser.run("getComputedStyle(document.querySelector('#shot-two')).mixBlendMode") == "difference"
    choose(browser, "Amplified", "×2")
    assert browser.run("getComputedStyle(document.querySelector('#shots')).filter") == "brightness(2)"
    left, top, right, bottom = (round(place) for place in box(browser, "#viewer-image"))
    folder = page.parent
    browser.picture(folder / "shot.png")
    with Image.open(folder / "shot.png") as shot:
        ratio = shot.width / size[0]
        places = [((left + share * (right - left)) * ratio, (top + bottom) / 2 * ratio) for share in (0.25, 0.75)]
        different, equal = (shot.convert("RGB").getpixel((round(x), round(y))) for x, y in places)
    assert different == (102, 102, 102) and equal == (0, 0, 0), "0.2 of 255, twice as much"
    click(browser, "[data-go='later']")
    choose(browser, "Compare with", "euler · 5 steps")
    browser.run(LATER)
    assert browser.run("document.querySelector('#difference-text').textContent") == "The images are equal."


@SIZES
def test_how_a_sample_came_about(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    click(browser, "#grid .tile")
    click(browser, "[data-mode='film']")
    browser.run(LATER)
    widths = "[...document.querySelectorAll('#films img')].map(i => i.naturalWidth)"
    assert browser.run(widths) == [61, 60], "the animation, then the strip"
    assert browser.run("document.querySelector('#shots').hidden")
    click(browser, "[data-go='right']")
    assert browser.run(MODE) == "One", "a cell without these pictures"
    assert not browser.run("document.querySelector(\"[data-mode='film']\")")
    click(browser, "[data-go='left']")
    assert browser.run(MODE) == "Sampling"


def test_a_page_that_was_moved_says_where_the_pictures_are(browser: Browser, page: Path, tmp_path: Path):
    alone = tmp_path / "page.html"
    alone.write_bytes(page.read_bytes())
    browser.open(alone, *LAPTOP)
    click(browser, "#grid .tile")
    click(browser, "[data-mode='film']")
    browser.run(LATER)
    assert "0_euler_5/trajectory.gif, which is not beside" in browser.run(
        "document.querySelector('#films').textContent"
    )
    browser.problems.clear()  # the files that are not there


@SIZES
def test_the_command_is_copied(browser: Browser, page: Path, size: tuple[int, int]):
    browser.open(page, *size)
    click(browser, "#grid .tile")
    command = "python -m diffexp 'scheduler={'\"'\"'name'\"'\"': '\"'\"'euler'\"'\"'}' steps=5"
    assert browser.run("document.querySelector('#viewer-command code').textContent") == command
    browser.run(
        "(() => { window.copied = []; const keep = async (text) => { window.copied.push(text); };"
        "Object.defineProperty(navigator, 'clipboard', { value: { writeText: keep }, configurable: true }); })()"
    )
    click(browser, "#copy-command")
    assert browser.run(LATER) is None and browser.run("window.copied") == [command]
    assert browser.run("document.querySelector('#viewer .toast').textContent") == "command copied"
    click(browser, "#viewer-close")
    click(browser, "#copy-commands")
    browser.run(LATER)
    assert browser.run("window.copied[1].split('\\n').length") == 4
    browser.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    copied = "document.addEventListener('copy', () => { window.fallback = String(document.activeElement.value); })"
    browser.run(copied)
    click(browser, "#copy-commands")
    browser.run(LATER)
    assert browser.run("window.fallback") == browser.run("window.copied[1]"), "where there is no clipboard, the old way"


def test_the_page_works_from_the_keyboard(browser: Browser, page: Path):
    browser.open(page, *LAPTOP)
    browser.run("document.querySelector('#chart-box use[tabindex=\"0\"]').focus()")
    assert browser.run("document.querySelector('#tip').textContent").startswith("euler · 5 steps")
    browser.key("ArrowRight")
    assert browser.run("document.activeElement.ariaLabel").startswith("euler · 10 steps: ")
    browser.key("Enter", "\r")
    assert title(browser).startswith("euler · 10 steps")
    browser.key("v", "v")
    assert browser.run(MODE) == "Side by side"
    browser.run("document.querySelector('#viewer-modes [aria-checked=true]').focus()")
    browser.key("ArrowRight")
    assert browser.run(MODE) == "Slider" and browser.run("document.activeElement.textContent") == "Slider"
    browser.key("Escape")
    assert not browser.run("document.querySelector('#viewer').open")
    assert browser.run("location.hash").count("view=") == 0
    assert browser.run("document.activeElement.ariaLabel").startswith("euler · 10 steps"), "the focus is where it was"
    browser.run("document.querySelector('#metric, #chart-controls select').focus()")
    choose(browser, "Metric", "psnr")
    assert browser.run("document.activeElement.value") == "psnr", "a control keeps the focus"


def test_a_cell_without_images_is_compared_without_them(browser: Browser, tmp_path: Path):
    made_up_cell(tmp_path, "0_a", {"scheduler": {"name": "a"}, "steps": 5}, pictures=1)
    made_up_cell(tmp_path, "1_b", {"scheduler": {"name": "b"}, "steps": 5}, status="failed", error="no", pictures=0)
    browser.open(write_report([tmp_path]), *LAPTOP)
    click(browser, "#grid .tile")
    for mode in ("side", "slider", "difference"):
        click(browser, f"[data-mode='{mode}']")
        assert browser.run("document.querySelector('#viewer-empty').textContent") == "b: failed: no"
