"""``over_seeds.csv``: means over seeds of the cells of a sweep."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from diffexp.files import write_text
from diffexp.report.axes import place_cells
from diffexp.sweeps.replicates import merge_replicates
from diffexp.sweeps.results import CellResult

NAME = "over_seeds.csv"


def write_over_seeds(cells: Sequence[CellResult], file: Path) -> Path | None:
    """Write the table, a row per cell that has several seeds; returns None, without a file, where there is none.

    Columns: every axis of the sweep, ``seeds``, every metric with its ends ``/low`` and ``/high``, and ``folders``.
    """
    merged = merge_replicates(cells)
    rows = [number for number, cell in enumerate(merged) if len(cell.members) > 1]
    if not rows:
        return None
    placement = place_cells(merged)
    names = list(dict.fromkeys(name for number in rows for name in merged[number].metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(axis.name for axis in placement.axes), "seeds", *names, "folders"])
    for number in rows:
        cell, place = merged[number], placement.places[number]
        values = [axis.values[value] for axis, value in zip(placement.axes, place)]
        folders = " ".join(member.folder.name for member in cell.members)
        numbers = [cell.metrics.get(name, "") for name in names]
        writer.writerow([*values, len(cell.members), *numbers, folders])
    write_text(file, text.getvalue())
    return file
