"""Significance of the differences between cells: for each pair a difference, its 95 % interval and a p-value.

Cells of one seed start from the same noise. Their bootstrap resamples (``components.metrics.bootstrap``)
select the same samples, so that the common effect of the noise cancels in the difference: the paired bootstrap (Efron &
Tibshirani 1993). Standard errors are estimates, so the intervals and p-values are those of Student's t.
"""

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from diffexp.components.metrics.intervals import t_quantile
from diffexp.experiment.per_sample import read_resamples
from diffexp.files import write_text
from diffexp.report.axes import Placement
from diffexp.report.values import Quality, value_of
from diffexp.sweeps.results import CellResult

NAME = "comparison.csv"
MAX_PAIRS = 6000
"""Pairs compared per metric."""
REAL = 0.05
"""A difference counts as real if its adjusted p-value is below."""


@dataclass(frozen=True)
class Difference:
    """The difference of a metric between two cells: its value for ``first`` minus that for ``second``."""

    first: int
    second: int
    difference: float
    low: float
    high: float
    p: float
    """Probability of a difference at least as large if there were none; two-sided."""
    p_holm: float
    """``p`` adjusted for the number of pairs compared in this metric (Holm 1979)."""


def read_all_resamples(cells: Sequence[CellResult]) -> list[dict[str, Tensor]]:
    """The resamples of each cell by metric; none for cells that are not done."""
    return [read_resamples(cell.folder) if cell.status == "done" else {} for cell in cells]


def compare(
    cells: Sequence[CellResult],
    resamples: Sequence[Mapping[str, Tensor]],
    quality: Quality,
    pairs: Sequence[tuple[int, int]],
) -> list[Difference]:
    """The differences of those pairs whose cells have resamples of equally many samples, in the same order."""
    resampled = {
        i: found[quality.name]
        for i, (cell, found) in enumerate(zip(cells, resamples))
        if quality.name in found and found[quality.name].isfinite().all() and value_of(cell, quality.name)
    }
    # Another version of diffexp, or a plugin, may write more or fewer of them: only the usual number can be compared.
    usual = Counter(map(len, resampled.values())).most_common(1)
    resampled = {i: found for i, found in resampled.items() if len(found) == usual[0][0]}
    counts = {i: cells[i].config.get("num_samples") for i in resampled}
    pairs = [(i, j) for i, j in pairs if i in resampled and j in resampled and counts[i] == counts[j]]
    if not pairs:
        return []
    rows = {cell: row for row, cell in enumerate(resampled)}
    covariance = torch.cov(torch.stack(list(resampled.values()))).reshape(len(rows), len(rows))
    values = {cell: found.value for cell in rows if (found := value_of(cells[cell], quality.name))}
    found = []
    for i, j in pairs:
        a, b = rows[i], rows[j]
        variance = covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]
        found.append((values[i] - values[j], math.sqrt(max(variance.item(), 0.0))))
    freedom = [max(int(counts[i] or 0) - 1, 1) for i, _ in pairs]
    p_values = [p_value(difference, error, own) for (difference, error), own in zip(found, freedom)]
    widths = [t_quantile(own) * error for (_, error), own in zip(found, freedom)]
    return [
        Difference(i, j, difference, difference - width, difference + width, p, adjusted)
        for (i, j), (difference, _), width, p, adjusted in zip(pairs, found, widths, p_values, holm(p_values))
    ]


def choose_pairs(placement: Placement) -> tuple[list[tuple[int, int]], str]:
    """Choose the pairs of cells to compare; returns them and a description of the choice.

    All pairs if they are not too many, else those that differ on one axis, else those that are neighbours on it.
    """
    cells = range(len(placement.places))
    every = len(cells) * (len(cells) - 1) // 2
    if every <= MAX_PAIRS:
        return list(combinations(cells, 2)), "every pair of cells"
    pairs = [(i, j) for i, j in combinations(cells, 2) if len(placement.differing(i, j)) == 1]
    if len(pairs) <= MAX_PAIRS:
        return pairs, f"{len(pairs):,} of the {every:,} pairs of cells: those that differ on one axis only"
    near = [(i, j) for i, j in pairs if sum(abs(a - b) for a, b in zip(placement.places[i], placement.places[j])) == 1]
    shown = near[:MAX_PAIRS]
    first = "" if len(shown) == len(near) else f"the first of the {len(near):,} "
    return shown, f"{len(shown):,} of the {every:,} pairs of cells: {first or 'those '}that are neighbours on one axis"


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def write_comparison(
    file: Path, cells: Sequence[CellResult], placement: Placement, found: Sequence[tuple[Quality, Sequence[Difference]]]
) -> None:
    """Write a line per metric and pair; ``better`` is the better cell if the adjusted p-value is below 0.05."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow("metric first second difference low high p p_holm better noise".split())
    for quality, differences in found:
        for d in differences:
            first, second = cells[d.first], cells[d.second]
            same = first.config.get("seed") == second.config.get("seed")
            better = first if quality.better(d.difference, 0.0) else second
            numbers = (f"{number:.6g}" for number in (d.difference, d.low, d.high, d.p, d.p_holm))
            winner = _relative(better, file) if d.p_holm < REAL else ""
            row = [quality.name, _relative(first, file), _relative(second, file), *numbers, winner]
            writer.writerow([*row, "same" if same else "different"])
    write_text(file, text.getvalue())


def p_value(difference: float, error: float, freedom: int) -> float:
    """The two-sided p-value of a difference with this standard error, estimated with ``freedom`` degrees of freedom."""
    from scipy.special import stdtr  # imported late: it takes a while

    if error == 0.0:
        return 1.0 if difference == 0.0 else 0.0
    return 2 * float(stdtr(freedom, -abs(difference) / error))


def _relative(cell: CellResult, file: Path) -> str:
    return Path(os.path.relpath(cell.folder, file.parent)).as_posix()
