"""A chart of the runs of a table: a metric over any column of numbers, a line for each value of others."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from diffexp.components.metrics.traits import higher_is_better
from diffexp.drawing import Drawing
from diffexp.errors import InputError
from diffexp.experiment.summary import HIGH, LOW
from diffexp.report.axes import ABSENT, BARE, PHRASES, as_text
from diffexp.report.chart_file import chart_svg
from diffexp.report.charts import Chart, Curve, Point
from diffexp.sweeps.replicates import IRRELEVANT_KEYS
from diffexp.sweeps.values import COSTS, NOT_QUALITY

COMMON = {"model": "{}", "num_samples": "{} samples", "prompt": "prompt: {}", "label": "label {}"}
"""Config keys that the title states where all runs agree in them."""
MAX_LETTERS = 40


def chart(table: pd.DataFrame, upward: str, across: str, lines_by: Sequence[str]) -> Drawing:
    """Draw finished runs: see ``Runs.chart``.

    Args:
        table: of ``Runs.over_seeds``.
        upward: the column of the metric.
        across: the column of the other axis.
        lines_by: the columns whose values have a line each.
    """
    for column in (across, upward):
        if not pd.api.types.is_numeric_dtype(table[column].infer_objects()):
            raise InputError(f"{column} has no numbers; give a metric, a cost such as forward_passes, or steps")
    rows = [row for row in table.to_dict("records") if pd.notna(row[across]) and pd.notna(row[upward])]
    if not rows:
        raise InputError(f"no finished run has {upward} and {across}")
    keys = [*lines_by, *_distinguishing(rows, table.attrs["config"], across, lines_by)]
    members: dict[tuple[str, ...], list[Mapping[Any, Any]]] = {}
    for row in sorted(rows, key=lambda row: float(row[across])):
        members.setdefault(tuple(_shown(row[key]) for key in keys), []).append(row)
    curves = [
        Curve(_name(keys, values), number, [_point(row, across, upward) for row in own])
        for number, (values, own) in enumerate(members.items())
    ]
    direction = "higher" if upward.partition("/")[0] in higher_is_better() else "lower"
    judged = upward not in NOT_QUALITY and upward not in table.attrs["config"]
    drawn = Chart(
        title=f"{upward} over {across.replace('_', ' ')}",
        note=" · ".join(_common(rows, keys)),
        x_label=COSTS.get(across, across),
        y_label=upward + (f" ({direction} is better)" if judged else ""),
        curves=curves,
    )
    svg = chart_svg(drawn, [Curve(curve.name, curve.style, ()) for curve in curves])
    return Drawing(svg, " · ".join(part for part in (drawn.title, drawn.note) if part))


def _distinguishing(rows: Sequence[Mapping[Any, Any]], config: Sequence[str], x: str, by: Sequence[str]) -> list[str]:
    """The further config keys in which rows of one line differ at the same place."""
    groups: dict[tuple[str, ...], list[Mapping[Any, Any]]] = {}
    for row in rows:
        groups.setdefault((_shown(row[x]), *(_shown(row[key]) for key in by)), []).append(row)
    ignored = {*PHRASES, x, *by}
    keys = [key for key in config if key not in ignored and key.partition(".")[0] not in IRRELEVANT_KEYS]
    found = [key for key in keys if any(len({_shown(row[key]) for row in own}) > 1 for own in groups.values())]
    return [key for key in found if key.partition(".")[0] not in found[: found.index(key)]]  # a choice has its options


def _name(keys: Sequence[str], values: Sequence[str]) -> str:
    """The name of a line: ``ddim · eta 0.5``; of a value that is absent nothing."""
    parts = [
        value if key in BARE else f"{key.rpartition('.')[2]} {value}"
        for key, value in zip(keys, values)
        if value != ABSENT
    ]
    return " · ".join(parts) or "all runs"


def _shown(value: Any) -> str:
    absent = value is None or (not isinstance(value, list | dict | tuple) and pd.isna(value))
    return ABSENT if absent else as_text(value)


def _point(row: Mapping[Any, Any], x: str, y: str) -> Point:
    ends = [row.get(f"{y}{end}") for end in (LOW, HIGH)]
    known = [float(end) for end in ends if end is not None and pd.notna(end)]
    low, high = known if len(known) == 2 else (None, None)
    return Point(0, float(row[x]), float(row[y]), low, high)


def _common(rows: Sequence[Mapping[Any, Any]], keys: Sequence[str]) -> list[str]:
    found = []
    for key, form in COMMON.items():
        values = {_shown(row.get(key)) for row in rows}
        if len(values) == 1 and key not in keys and values != {ABSENT}:
            text = form.format(*values)
            found.append(text if len(text) <= MAX_LETTERS else f"{text[: MAX_LETTERS - 1]}…")
    seeds = {int(row["seeds"]) for row in rows}
    if seeds != {1}:
        found.append(
            f"mean over {min(seeds)} seeds" if len(seeds) == 1 else f"mean over {min(seeds)} to {max(seeds)} seeds"
        )
    return found
