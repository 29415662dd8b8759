"""A report for the tracker of the runs that it is about."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffexp.components.trackers.base import Comparison, Curves, RunInfo
from diffexp.report.charts import Chart
from diffexp.report.page import Report
from diffexp.report.values import COSTS

PICTURES = "grid.png"


def comparison_of(report: Report, sweep: Path, page: Path, tables: Sequence[Path]) -> Comparison:
    """What a tracker gets of a sweep.

    Args:
        sweep: its folder, which is also the group of its runs.
        page: the report as it was written.
        tables: files of the sweep; those that are not there are left out.
    """
    tags = sorted({tag for cell in report.cells for tag in cell.config.get("tags") or []})
    info = RunInfo(
        folder=sweep,
        config={"sweep": str(sweep), "axes": {axis.name: list(axis.values) for axis in report.layout.axes}},
        name=f"comparison {sweep.name}",
        group=str(sweep),
        job_type="comparison",
        tags=tags,
        notes=None,
        sweep=True,
    )
    axes = [axis.name for axis in report.layout.axes]
    return Comparison(
        info=info,
        columns=["cell", *axes, "status", *report.metrics, "pictures"],
        rows=[_row(report, number) for number in range(len(report.cells))],
        curves=[_curves(quality.name, cost, chart) for quality, cost, chart in report.charts],
        report=page,
        files=[page, *(table for table in tables if table.is_file())],
    )


def _row(report: Report, number: int) -> list[Any]:
    cell, place = report.cells[number], report.layout.places[number]
    values = [found.value if (found := report.value(number, name)) else None for name in report.metrics]
    picture = cell.folder / PICTURES
    where = [axis.values[value] for axis, value in zip(report.layout.axes, place)]
    return [report.labels[number], *where, cell.status, *values, picture if picture.is_file() else None]


def _curves(name: str, cost: str, chart: Chart) -> Curves:
    lines = [(series.name, sorted(series.points, key=lambda point: point.x)) for series in chart.series]
    return Curves(
        title=f"{name} over {cost}",
        x_name=COSTS[cost],
        names=[line for line, _ in lines],
        xs=[[point.x for point in points] for _, points in lines],
        ys=[[point.y for point in points] for _, points in lines],
    )
