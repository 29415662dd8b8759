"""A page that compares runs: images side by side, quality over cost with intervals, and which differences are real."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffexp.catalog.discover import Catalog
    from diffexp.report.content import Report

log = logging.getLogger(__name__)

NAME = "report.html"
FINAL = ("done", "failed")
"""Statuses of cells that will not be resumed."""


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page, and ``comparison.csv`` beside it.

    Args:
        folders: folders of sweeps or runs, or folders that contain such folders.
        out: the file; by default ``report.html`` in the folder if there is one folder, else in the working folder.

    Returns:
        The file.

    Raises:
        InputError: a folder contains no runs.
        OSError: the file cannot be written.
    """
    return _write(folders, out)[0]


def write_chart(folders: Sequence[Path], out: Path, metric: str | None = None, cost: str | None = None) -> Path:
    """Write one chart of the page as an SVG or a PNG file.

    Args:
        metric: as in ``metrics.json``; by default the first that the page shows.
        cost: ``forward_passes``, ``nfe`` or ``seconds_per_image``; by default the first that every finished cell has.

    Raises:
        InputError: a folder contains no runs, no cell has both metric and cost, or no such cost is known.
    """
    from diffexp.drawing import Drawing
    from diffexp.errors import InputError, nearest
    from diffexp.report.chart_file import chart_svg
    from diffexp.report.collect import collect
    from diffexp.report.content import Report
    from diffexp.sweeps.values import COSTS

    if cost is not None and cost not in COSTS:
        more = nearest(cost, COSTS) or f"; for a chart over anything else: metric=... x={cost}"
        raise InputError(f"cost={cost} is not one of {', '.join(COSTS)}{more}")
    report = Report(collect(folders), out.absolute())
    cost = cost or report.cost
    known = [(quality.name, chart) for quality, own, chart in report.charts if own == cost]
    chart = next((chart for name, chart in known if metric in (None, name)), None)
    if chart is None:
        there = ", ".join(name for name, _ in known) or "none"
        wanted = "a metric" if metric is None else f"metric={metric}"
        raise InputError(f"no cell has {wanted} over cost={cost} (available metrics: {there})")
    return Drawing(chart_svg(chart, report.legend), chart.title).save(out)


@contextmanager
def live_page(sweep: Path) -> Iterator[None]:
    """Write the page of a sweep into its folder while the block runs, every few seconds at most.

    What is written is a page that loads itself again; ``report_sweep`` replaces it at the end. Errors are logged and
    cost this page alone.
    """
    from diffexp.report.live import LivePage

    page = LivePage(sweep, sweep / NAME)
    page.start()
    try:
        yield
    finally:
        page.stop()


def report_sweep(sweep: Path, catalog: Catalog, show: Callable[[Report], object] = lambda report: None) -> Path | None:
    """Write the report of a sweep that has just ended into its folder, and log it to the tracker of its cells.

    Errors are logged and cost the report alone. The tracker gets the report once every cell has ended.

    Args:
        show: is called with the report once it is written.

    Returns:
        The page, or None if there is none.
    """
    if not any(sweep.glob("*/run.json")):
        return None  # no cell has begun
    try:
        page, report = _write([sweep], None)
        show(report)
        if all(cell.status in FINAL for cell in report.runs):
            _track(sweep, page, report, catalog)
    except Exception as error:
        log.warning("no report: %s: %s", type(error).__name__, error)
        log.debug("its traceback", exc_info=error)
        return None
    return page


def _write(folders: Sequence[Path], out: Path | None) -> tuple[Path, Report]:
    from diffexp.files import write_text
    from diffexp.report.collect import collect
    from diffexp.report.comparison import NAME as COMPARISON, write_comparison
    from diffexp.report.content import Report
    from diffexp.report.page import page_html

    out = out or (folders[0] if len(folders) == 1 else Path.cwd()) / NAME
    report = Report(collect(folders), out.absolute())
    write_text(out, page_html(report))
    if report.compared:
        write_comparison(out.absolute().with_name(COMPARISON), report.cells, report.placement, report.comparisons)
    return out, report


def _track(sweep: Path, page: Path, report: Report, catalog: Catalog) -> None:
    from diffexp.experiment.build import build_trackers
    from diffexp.report.comparison import NAME as COMPARISON
    from diffexp.report.tracker import comparison_of
    from diffexp.sweeps.results import NAME as RESULTS

    node = next((cell.record["config"]["tracker"] for cell in report.runs if cell.record.get("config")), None)
    if node is not None:
        build_trackers(node, catalog).compare(comparison_of(report, sweep, page, [sweep / RESULTS, sweep / COMPARISON]))
