"""The page of a running sweep in a browser: it loads itself again, and stays where the reader is."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffexp.report import NAME, write_report
from diffexp.report.live_report import SweepPage
from diffexp.report.watch import Server
from tests.browser import EXECUTABLE, Browser
from tests.made_up import made_up_cell

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium on this machine")
SCHEDULERS = [f"s{number}" for number in range(12)]
SUMMARY = "document.querySelector('#live strong')?.textContent ?? 'over'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    cells = [[f"scheduler={name}", "steps=5"] for name in SCHEDULERS]
    (tmp_path / "sweep.json").write_text(json.dumps({"overrides": [], "cells": cells}))
    for number in range(6):
        cell(tmp_path, number)
    return tmp_path


def cell(sweep: Path, number: int) -> None:
    made_up_cell(sweep, f"{number}_{SCHEDULERS[number]}_5", {"scheduler": {"name": SCHEDULERS[number]}, "steps": 5})


def write(page: SweepPage, sweep: Path) -> None:
    text = page.html(1.0)
    assert text
    (sweep / NAME).write_text(text.replace('data-every="1.0"', 'data-every="0.2"'))


def until(browser: Browser, script: str, expected: Any) -> None:
    """Wait until an expression has a value; the page may be loading when it is evaluated."""
    deadline, found = time.monotonic() + 40, None
    while time.monotonic() < deadline:
        answer = browser.send("Runtime.evaluate", expression=script, returnByValue=True)
        found = answer["result"].get("value")
        if found == expected:
            return
        time.sleep(0.2)
    raise AssertionError((found, expected))


def act(browser: Browser, script: str) -> None:
    """Run statements, on the next page if this one is being replaced."""
    until(browser, f"(() => {{ {script}; return 'done' }})()", "done")


def test_it_loads_itself_until_the_sweep_has_ended(browser: Browser, sweep: Path):
    browser.problems.clear()
    page = SweepPage(sweep, sweep / NAME)
    write(page, sweep)
    for width in (390, 1280):
        browser.open(sweep / NAME, width, 800)
        act(browser, "live.paused = true")
        assert browser.run(SUMMARY) == "6 of 12 cells done, 6 waiting"
        assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelector('#live progress').value") == 0.5
    assert "Written" in browser.run("document.querySelector('#live-age').textContent")
    pictures = "[...document.querySelectorAll('#grid .tile img')].filter(i => i.naturalWidth === 32).length"
    browser.run("document.querySelector('#grid').scrollIntoView({behavior: 'instant'})")
    assert browser.run(f"new Promise(r => setTimeout(() => r({pictures}), 300))") > 0, "the files of the runs are shown"
    browser.run("document.querySelector('#result-table button').focus({preventScroll: true})")
    browser.run("scrollTo({top: 700, behavior: 'instant'}); window.old = true")
    cell(sweep, 6)
    write(page, sweep)
    browser.run("live.paused = false")
    until(browser, SUMMARY, "7 of 12 cells done, 5 waiting")
    place = "[Math.round(scrollY), document.activeElement.textContent.trim(), window.old ?? null].join()"
    until(browser, place, "700,cell,")
    write_report([sweep])
    until(browser, SUMMARY, "over")
    browser.run("window.last = true")
    time.sleep(1.5)
    assert browser.run("window.last"), "a page of a sweep that has ended is loaded once"
    assert browser.problems == []


def test_it_waits_for_the_reader(browser: Browser, sweep: Path):
    write(SweepPage(sweep, sweep / NAME), sweep)
    browser.open(sweep / NAME)
    act(browser, "document.querySelector('#live-pause').click(); window.first = true")
    time.sleep(1.5)
    assert browser.run("window.first"), "paused"
    assert browser.run("document.querySelector('#live-pause').ariaPressed") == "true"
    browser.run("document.querySelector('#live-pause').click()")
    until(browser, "window.first ?? null", None)
    act(browser, "document.querySelector('#grid .tile').click(); window.first = true")
    time.sleep(1.5)
    assert browser.run("window.first"), "an image is open"
    browser.run("document.querySelector('#viewer').close()")
    until(browser, "window.first ?? null", None)
    act(browser, "const f = document.querySelector('#filter'); f.focus(); f.dispatchEvent(new Event('input'))")
    browser.run("window.first = true")
    browser.key("s", "s")
    time.sleep(1.5)
    assert browser.run("window.first && document.querySelector('#filter').value.endsWith('s')"), "somebody writes"


def test_a_page_that_is_no_longer_written_says_so(browser: Browser, sweep: Path):
    text = SweepPage(sweep, sweep / NAME).html(3.0)
    assert text
    written = text.partition('data-written="')[2].partition('"')[0]
    (sweep / NAME).write_text(text.replace(written, str(time.time() - 600)))
    browser.open(sweep / NAME)
    said = browser.run("document.querySelector('#live-age').textContent")
    assert said == "Written 10 min ago: the sweep may have been killed."


def test_a_served_page_is_loaded_again_when_there_is_a_newer_one(browser: Browser, sweep: Path):
    with Server(sweep, 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        browser.send("Page.navigate", url=server.url)
        until(browser, SUMMARY, "6 of 12 cells done, 6 missing")
        browser.problems.clear()
        browser.run("window.first = true")
        time.sleep(4)
        assert browser.run("window.first"), "nothing is new"
        assert not any("Refused" in problem or "rror" in problem for problem in browser.problems), browser.problems
        cell(sweep, 6)
        until(browser, SUMMARY, "7 of 12 cells done, 5 missing")
        assert browser.run("document.querySelector('#live-age').textContent").startswith("All runs shown have ended")
        browser.run("document.querySelector('#result-table tbody a').click()")
        until(browser, "document.querySelector('h1').textContent", "0_s0_5")
        browser.run("[...document.querySelectorAll('a')].find(a => a.textContent === 'samples/').click()")
        until(browser, "[...document.querySelectorAll('img')].filter(i => i.naturalWidth === 32).length", 2)
        browser.send("Page.navigate", url=server.url)
        until(browser, SUMMARY, "7 of 12 cells done, 5 missing")
        offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        browser.send("Network.emulateNetworkConditions", **offline)
        said = "The server does not answer: this is the last page it had."
        until(browser, "document.querySelector('#live-age').textContent", said)
