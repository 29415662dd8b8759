"""The report of a sweep in the form that trackers log."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffexp.components.trackers.base import Comparison, Curves, RunInfo
from diffexp.report.charts import Chart
from diffexp.report.page import Report
from diffexp.report.values import COSTS

GRID_FILE = "grid.png"


def comparison_of(report: Report, sweep: Path, page: Path, tables: Sequence[Path]) -> Comparison:
    """The comparison of a sweep's cells for a tracker.

    Args:
        sweep: folder of the sweep, which is also the group of its runs.
        page: file of the report.
        tables: further files of the sweep; missing ones are skipped.
    """
    tags = sorted({tag for cell in report.runs for tag in cell.config.get("tags") or []})
    info = RunInfo(
        folder=sweep,
        config={"sweep": str(sweep), "axes": {axis.name: list(axis.values) for axis in report.placement.axes}},
        name=f"comparison {sweep.name}",
        group=str(sweep),
        job_type="comparison",
        tags=tags,
        notes=None,
        sweep=True,
    )
    axes = [axis.name for axis in report.placement.axes]
    return Comparison(
        info=info,
        columns=["cell", *axes, *(["seeds"] if report.replicated else []), "status", *report.metrics, "pictures"],
        rows=[_row(report, number) for number in range(len(report.cells))],
        curves=[_curves(quality.name, cost, chart) for quality, cost, chart in report.charts],
        report=page,
        files=[page, *(table for table in tables if table.is_file())],
    )


def _row(report: Report, number: int) -> list[Any]:
    cell, place = report.cells[number], report.placement.places[number]
    values = [found.value if (found := report.value(number, name)) else None for name in report.metrics]
    picture = cell.folder / GRID_FILE
    coordinates = [axis.values[value] for axis, value in zip(report.placement.axes, place)]
    seeds = [len(cell.runs)] if report.replicated else []
    return [report.labels[number], *coordinates, *seeds, cell.status, *values, picture if picture.is_file() else None]


def _curves(metric: str, cost: str, chart: Chart) -> Curves:
    curves = [(curve.name, sorted(curve.points, key=lambda point: point.x)) for curve in chart.curves]
    return Curves(
        title=f"{metric} over {cost}",
        x_name=COSTS[cost],
        names=[name for name, _ in curves],
        xs=[[point.x for point in points] for _, points in curves],
        ys=[[point.y for point in points] for _, points in curves],
    )
