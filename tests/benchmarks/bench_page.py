"""How long the page of a sweep takes to be written and to open in headless Chromium.

    python -m tests.benchmarks.bench_page [cells] [rounds]

Made-up cells of two metrics with intervals. It is open when the browser has loaded it and painted twice.
"""

import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from diffexp.report import write_report
from tests.browser import Browser
from tests.made_up import made_up_sweep

TARGET = 2.0


def main(cells: int = 1000, rounds: int = 3) -> None:
    with tempfile.TemporaryDirectory() as folder:
        schedulers = [f"s{number}" for number in range(cells // 25)]
        sweep = made_up_sweep(Path(folder), schedulers, [5, 10, 20, 30, 50], labels=range(5), pictures=1)
        began = time.perf_counter()
        page = write_report([sweep])
        written = time.perf_counter() - began
        taken: list[float] = []
        with closing(Browser()) as browser:
            for _ in range(rounds + 1):
                began = time.perf_counter()
                browser.open(page, 1280, 800)
                taken.append(time.perf_counter() - began)
        size = page.stat().st_size / 1e6
    print(f"{25 * len(schedulers)} cells, {size:.1f} MB: written in {written:.1f} s")
    print(f"  opened and painted in {statistics.median(taken[1:]):.2f} s, first {taken[0]:.2f} s   target {TARGET} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
