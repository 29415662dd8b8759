"""Means over seeds of a sweep, as lines for the terminal and as a table."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from diffexp.experiment.summary import metrics_line
from diffexp.files import write_text
from diffexp.report.axes import place_cells
from diffexp.sweeps.replicates import merge_replicates
from diffexp.sweeps.results import CellResult

NAME = "over_seeds.csv"
MAX_LINES = 40
"""Up to so many cells are printed."""


def over_seeds(cells: Sequence[CellResult], file: Path) -> list[str]:
    """Write the table, a row per cell that has several seeds, and return a line for each; none where there are none.

    Columns: every axis of the sweep, ``seeds``, every metric with its ends ``/low`` and ``/high``, and ``folders``.
    """
    merged = merge_replicates(cells)
    rows = [number for number, cell in enumerate(merged) if len(cell.members) > 1]
    if not rows:
        return []
    placement = place_cells(merged)
    names = list(dict.fromkeys(name for number in rows for name in merged[number].metrics))
    text, lines = io.StringIO(), []
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(axis.name for axis in placement.axes), "seeds", *names, "folders"])
    for number in rows:
        cell, place = merged[number], placement.places[number]
        values = [axis.values[value] for axis, value in zip(placement.axes, place)]
        folders = " ".join(member.folder.name for member in cell.members)
        numbers = [cell.metrics.get(name, "") for name in names]
        writer.writerow([*values, len(cell.members), *numbers, folders])
        label = placement.label(number) or cell.folder.name
        lines.append(f"{label}, mean over {len(cell.members)} seeds: {metrics_line(cell.metrics)}")
    write_text(file, text.getvalue())
    return lines if len(lines) <= MAX_LINES else [f"means over seeds of {len(lines)} cells are in {file}"]
