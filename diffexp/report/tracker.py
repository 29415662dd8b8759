"""The report of a sweep in the form that trackers log."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffexp.components.trackers.base import Comparison, Curves, RunInfo
from diffexp.experiment.summary import HIGH, LOW
from diffexp.experiment.tracking import group_name
from diffexp.report.charts import Chart
from diffexp.report.content import Report
from diffexp.sweeps.values import COSTS

GRID_FILE = "grid.png"
SAME = {"model": "model.name", "seed": "seed", "num_samples": "num_samples", "scheduler": "scheduler.name"}
"""Facts about all runs of a comparison, and their config keys."""


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
        config={
            "sweep": str(sweep),
            "axes": {axis.name: list(axis.values) for axis in report.placement.axes},
            "cells": len(report.cells),
            **{name: _values(report, key) for name, key in SAME.items()},
        },
        name=f"comparison {sweep.name}",
        group=group_name(sweep),
        job_type="comparison",
        tags=tags,
        notes=None,
        sweep=True,
    )
    axes = [axis.name for axis in report.placement.axes]
    rows = [_row(report, number) for number in range(len(report.cells))]
    known = [name for metric in report.metrics for name in (metric, f"{metric}{LOW}", f"{metric}{HIGH}")]
    numbers = [name for name in known if any(name in own for _, own in rows)]
    columns = ["cell", *axes, *(["seeds"] if report.replicated else []), "status", *numbers, "pictures"]
    return Comparison(
        info=info,
        columns=columns,
        rows=[[*first, *map(own.get, numbers), _picture(report, cell)] for cell, (first, own) in enumerate(rows)],
        curves=[_curves(quality.name, cost, chart) for quality, cost, chart in report.charts],
        report=page,
        files=[page, *(table for table in tables if table.is_file())],
    )


def _row(report: Report, number: int) -> tuple[list[Any], dict[str, float]]:
    """What a cell is, and its metrics with the ends of their intervals."""
    cell, place = report.cells[number], report.placement.places[number]
    numbers: dict[str, float] = {}
    for name in report.metrics:
        if found := report.value(number, name):
            ends = {f"{name}{LOW}": found.low, f"{name}{HIGH}": found.high}
            numbers |= {name: found.value} | {end: value for end, value in ends.items() if value is not None}
    coordinates = [axis.values[value] for axis, value in zip(report.placement.axes, place)]
    seeds = [len(cell.runs)] if report.replicated else []
    return [report.labels[number], *coordinates, *seeds, cell.status], numbers


def _picture(report: Report, number: int) -> Path | None:
    picture = report.cells[number].folder / GRID_FILE
    return picture if picture.is_file() else None


def _values(report: Report, key: str) -> Any:
    """The value of a config key in all runs; where they differ, the list of their values."""
    values = [value for run in report.runs if (value := run.config.get(key)) is not None]
    known = list({str(value): value for value in values}.values())
    return known[0] if len(known) == 1 else known


def _curves(metric: str, cost: str, chart: Chart) -> Curves:
    curves = [(curve.name, sorted(curve.points, key=lambda point: point.x)) for curve in chart.curves]
    return Curves(
        title=f"{metric} over {cost}",
        x_name=COSTS[cost],
        names=[name for name, _ in curves],
        xs=[[point.x for point in points] for _, points in curves],
        ys=[[point.y for point in points] for _, points in curves],
        metric=metric,
        cost=cost,
    )
