"""The results of cells as a table: a row a cell, runs that differ in nothing but the seed as one.

Its readable form has the finished cells in the order of a metric, the best value of each metric in bold, and what is
not significantly worse in italics; as numbers it has every cell. ``diffexp.report.tables`` writes both.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexp.errors import InputError
from diffexp.report.axes import GROUPS, as_text, option_of
from diffexp.report.ranking import BEST, Ranking
from diffexp.sweeps.values import COSTS, Value, cost_of

if TYPE_CHECKING:
    import pandas as pd

    from diffexp.report.content import Report

BOLD, ITALIC = "bold", "italic"
SIGNIFICANT = 2
"""Digits of half an interval; values have as many decimals as their interval."""


@dataclass(frozen=True)
class Text:
    """A cell of a table."""

    text: str
    style: str = ""
    """``bold``, ``italic`` or nothing."""


@dataclass(frozen=True)
class Column:
    title: str
    cells: Sequence[Text]
    is_number: bool = True


class ResultTable:
    """The table of a report.

    Args:
        metric: what the rows are ordered by; by default the first metric of the report.
    """

    def __init__(self, report: "Report", metric: str | None = None) -> None:
        self.report = report
        known = [quality.name for quality in report.qualities]
        if metric is not None and metric not in known:
            raise InputError(f"no cell has metric={metric} (available metrics: {', '.join(known) or 'none'})")
        self.ranking = Ranking(report, metric)

    @cached_property
    def columns(self) -> list[Column]:
        """The columns of the readable forms."""
        report, shown = self.report, [row.cell for row in self.ranking.rows]
        axes = report.placement.axes
        found = [
            Column(
                axis.name, [Text(axis.values[report.placement.places[i][number]]) for i in shown], _numeric(axis.values)
            )
            for number, axis in enumerate(axes)
        ]
        if not axes:
            found.append(Column("cell", [Text(report.labels[i]) for i in shown], False))
        if any(len(report.cells[i].runs) > 1 for i in shown):
            found.append(Column("seeds", [Text(str(len(report.cells[i].runs))) for i in shown]))
        for cost in COSTS:
            values = [cost_of(report.cells[i], cost) for i in shown]
            if any(value is not None for value in values) and not _repeated(values, found):
                texts = [Text("" if value is None else value_text(Value(value))) for value in values]
                found.append(Column(cost.replace("_", " "), texts))
        for quality in report.qualities:
            marks = self.ranking.marks(quality)
            texts = [
                Text(value_text(value), "" if i not in marks else BOLD if marks[i] == BEST else ITALIC)
                if (value := report.value(i, quality.name))
                else Text("")
                for i in shown
            ]
            if any(text.text for text in texts):
                found.append(Column(f"{quality.name} {'↑' if quality.higher else '↓'}", texts))
        return found

    @property
    def rows(self) -> list[tuple[Text, ...]]:
        return list(zip(*(column.cells for column in self.columns)))

    @cached_property
    def notes(self) -> list[str]:
        """What the table shows, and what it does not, in sentences without a full stop."""
        report, ranking = self.report, self.ranking
        facts = dict(report.facts)
        said = [f"{key}: {facts[key]}" for key in ("model", "samples per run") if key in facts]
        if any(len(report.cells[i].runs) > 1 for i in ranking.done):
            said.append("means over seeds")
        notes = ["; ".join([*said, "in brackets 95 % intervals"])]
        styles = {text.style for row in self.rows for text in row}
        if BOLD in styles:
            undecided = "; italic: not significantly worse (5 %, Holm)" if ITALIC in styles else ""
            notes.append(f"bold: the best of a metric{undecided}")
        if len(set(ranking.conditions)) > 1:
            notes.append("cells with other models, prompts, labels or numbers of samples are not compared")
        if left := len(report.cells) - len(ranking.rows):
            notes.append(f"{left} of {len(report.cells)} cells are not done, and not shown")
        return [note[0].upper() + note[1:] for note in notes]

    def frame(self, beside: Path) -> "pd.DataFrame":
        """Every number: the axes, ``seeds``, each metric with its ends ``/low`` and ``/high``, ``status``, ``error``.

        Args:
            beside: the folder that the column ``folders`` is relative to; it has those of all seeds.
        """
        import pandas as pd

        report = self.report
        rows = []
        for cell in report.cells:
            axes = {axis.name: _value(cell.config, axis.name) for axis in report.placement.axes}
            costs = {cost: value for cost in COSTS if (value := cost_of(cell, cost)) is not None}
            folders = [Path(os.path.relpath(run.folder, beside)).as_posix() for run in cell.runs if run.folder.is_dir()]
            metrics = {name if name not in axes else f"metric.{name}": value for name, value in cell.metrics.items()}
            rows.append(
                {**axes, "seeds": len(cell.runs), "status": cell.status, **costs, **metrics}
                | {"error": cell.error, "folders": " ".join(folders)}
            )
        names = list(dict.fromkeys(name for row in rows for name in row))
        last = [name for name in ("error", "folders") if name in names]
        return pd.DataFrame(rows, columns=[*(name for name in names if name not in last), *last])


def value_text(value: Value) -> str:
    """A value and its interval with the same decimals: ``2.65 [2.41, 2.90]``."""
    if value.low is None or value.high is None or not value.high > value.low:
        return f"{int(value.value)}" if value.value.is_integer() and abs(value.value) < 1e6 else f"{value.value:.4g}"
    power = math.floor(math.log10((value.high - value.low) / 2))
    decimals = max(0, SIGNIFICANT - 1 - power)
    if decimals > 6 or abs(value.value) >= 1e6:
        return f"{value.value:.4g} [{value.low:.3g}, {value.high:.3g}]"
    return f"{value.value:.{decimals}f} [{value.low:.{decimals}f}, {value.high:.{decimals}f}]"


def _value(config: Mapping[str, Any], axis: str) -> Any:
    """The value of a cell on an axis; of a group the name of its choice."""
    found = option_of(config, axis) if axis in GROUPS else config.get(axis)
    return as_text(found) if isinstance(found, list | dict) else found


def _repeated(values: Sequence[float | None], columns: Sequence[Column]) -> bool:
    """Whether a column has the same numbers already, as ``nfe`` and ``forward passes`` without guidance."""
    texts = ["" if value is None else value_text(Value(value)) for value in values]
    return any(
        [cell.text for cell in column.cells] == texts for column in columns if column.title.startswith("forward")
    )


def _numeric(values: Sequence[str]) -> bool:
    return all(re.fullmatch(r"–|-?[\d.]+(e[+-]?\d+)?", value) for value in values)
