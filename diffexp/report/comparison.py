"""Which differences between cells are real: for each pair a difference, its 95 % interval and a p-value.

Cells of one seed start from the same noise. Their resamples (``components.metrics.bootstrap``) are of the same samples,
so that what the noise does to both cancels in the difference: the paired bootstrap (Efron & Tibshirani 1993).
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

from diffexp.experiment.per_sample import read_resamples
from diffexp.files import write_text
from diffexp.report.axes import Layout
from diffexp.report.values import Quality, value_of
from diffexp.sweeps.results import Cell

NAME = "comparison.csv"
MOST_PAIRS = 6000
"""For each metric."""
REAL = 0.05
"""A difference counts as real if its adjusted p-value is below."""
Z = 1.959964
"""Half the width of a 95 % interval, in standard deviations of a normal distribution."""


@dataclass(frozen=True)
class Difference:
    """Of one metric between two cells: the value of ``first`` minus that of ``second``."""

    first: int
    second: int
    difference: float
    low: float
    high: float
    p: float
    """Probability of a difference this large if there were none, from its standard error; two-sided."""
    p_holm: float
    """The same, adjusted for the number of pairs compared in this metric (Holm 1979)."""


def read_all_resamples(cells: Sequence[Cell]) -> list[dict[str, Tensor]]:
    """For each cell the resamples by metric; of cells that are not done there are none."""
    return [read_resamples(cell.folder) if cell.status == "done" else {} for cell in cells]


def compare(
    cells: Sequence[Cell],
    resamples: Sequence[Mapping[str, Tensor]],
    quality: Quality,
    pairs: Sequence[tuple[int, int]],
) -> list[Difference]:
    """Those of the pairs for which both cells have resamples of equally many samples, in the same order."""
    resampled = {
        i: found[quality.name]
        for i, (cell, found) in enumerate(zip(cells, resamples))
        if quality.name in found and found[quality.name].isfinite().all() and value_of(cell, quality.name)
    }
    # Another version of diffexp, or a plugin, may make more or fewer of them: only the usual number can be compared.
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
    p_values = [_p_value(difference, error, own) for (difference, error), own in zip(found, freedom)]
    reach = [as_student(Z, own) * error for (_, error), own in zip(found, freedom)]
    return [
        Difference(i, j, difference, difference - most, difference + most, p, adjusted)
        for (i, j), (difference, _), most, p, adjusted in zip(pairs, found, reach, p_values, holm(p_values))
    ]


def choose_pairs(layout: Layout) -> tuple[list[tuple[int, int]], str]:
    """Which cells are compared, and how that is said.

    All with all, as long as they are not too many; then those that differ on one axis; then those beside each other.
    """
    cells = range(len(layout.places))
    every = len(cells) * (len(cells) - 1) // 2
    if every <= MOST_PAIRS:
        return list(combinations(cells, 2)), "every pair of cells"
    pairs = [(i, j) for i, j in combinations(cells, 2) if len(layout.differing(i, j)) == 1]
    if len(pairs) <= MOST_PAIRS:
        return pairs, f"{len(pairs):,} of the {every:,} pairs of cells: those that differ on one axis only"
    near = [(i, j) for i, j in pairs if sum(abs(a - b) for a, b in zip(layout.places[i], layout.places[j])) == 1]
    shown = near[:MOST_PAIRS]
    first = "" if len(shown) == len(near) else f"the first of the {len(near):,} "
    return shown, f"{len(shown):,} of the {every:,} pairs of cells: {first or 'those '}that are neighbours on one axis"


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that may be held against one level though there are many of them (Holm 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def write_comparison(
    file: Path, cells: Sequence[Cell], layout: Layout, found: Sequence[tuple[Quality, Sequence[Difference]]]
) -> None:
    """A line per metric and pair; ``better`` is the cell that wins where the adjusted p-value is below 0.05."""
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


def _p_value(difference: float, error: float, freedom: int) -> float:
    """Of Student's t: the error itself is estimated, from one sample more than there are degrees of freedom."""
    if error == 0.0:
        return 1.0 if difference == 0.0 else 0.0
    return math.erfc(as_normal(abs(difference) / error, freedom) / math.sqrt(2))


def as_normal(t: float, freedom: int) -> float:
    """The normal deviate that is as improbable as ``t`` of Student's distribution (Wallace 1959)."""
    return (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))


def as_student(z: float, freedom: int) -> float:
    """The inverse."""
    within = z * (8 * freedom + 3) / (8 * freedom + 1)
    return math.sqrt(freedom * math.expm1(within * within / freedom))


def _relative(cell: Cell, file: Path) -> str:
    return Path(os.path.relpath(cell.folder, file.parent)).as_posix()
