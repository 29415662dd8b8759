"""Numbers and names as the page shows them."""

import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from diffexp.report.axes import as_text
from diffexp.sweeps.results import CellResult
from diffexp.sweeps.values import Value


def seeds_text(cell: CellResult) -> str:
    """The number of seeds of a cell, as the end of its label: `` (3 seeds)``; empty for one."""
    return f" ({len(cell.members)} seeds)" if len(cell.members) > 1 else ""


FEW = "few samples"
"""Beside values of fewer samples than their metric needs."""


def interval_text(value: Value) -> str:
    """The interval of a value, ``2.41 to 2.9``, and whether it is of few samples; empty without either."""
    ends = "" if value.low is None or value.high is None else f"{value.low:.3g} to {value.high:.3g}"
    return ", ".join(filter(None, (ends, FEW if value.few else "")))


def number(value: float) -> str:
    """A number with three to four significant digits; whole numbers in full."""
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{int(value)}"
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.3g}"


def breakable(name: str) -> Markup:
    """A name as markup that may be broken after "_", "/" and "."."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/.])", name))


def decimals(text: str) -> int:
    """The digits after the point of a number in positional notation; 0 in scientific notation."""
    return 0 if "e" in text else len(text.partition(".")[2])


def some_of(values: Sequence[Any]) -> str:
    """The different values, at most three of them in full."""
    different = list(dict.fromkeys(as_text(value) for value in values if value not in (None, "")))
    return ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")
