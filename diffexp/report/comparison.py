"""Significance of the differences between cells: for each pair a difference, its 95 % interval and a p-value.

Runs of one seed start from the same noise, whose common effect cancels in the difference. Cells of several seeds are
compared seed by seed; of others, the bootstrap resamples (``components.metrics.bootstrap``) select the same samples
(paired bootstrap, Efron & Tibshirani 1993). Standard errors are estimates, so the intervals and p-values are those of
Student's t.
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

import numpy as np
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
    """The differences of those pairs that can be compared, in the same order.

    Cells with two or more seeds in common are compared seed by seed (paired t-test), others by resamples of their first
    run, which both need to have, of equally many samples.
    """
    over_seeds = {(i, j): found for i, j in pairs if (found := _over_seeds(cells[i], cells[j], quality))}
    resampled = _by_resamples(cells, resamples, quality, [pair for pair in pairs if pair not in over_seeds])
    found = {pair: measured for pair in pairs if (measured := over_seeds.get(pair) or resampled.get(pair))}
    p_values = [p_value(difference, error, freedom) for difference, error, freedom in found.values()]
    return [
        Difference(i, j, difference, difference - width, difference + width, p, adjusted)
        for ((i, j), (difference, error, freedom)), p, adjusted in zip(found.items(), p_values, holm(p_values))
        for width in [t_quantile(freedom) * error]
    ]


Measured = tuple[float, float, int]
"""A difference, its standard error, and the degrees of freedom of that."""


def _over_seeds(first: CellResult, second: CellResult, quality: Quality) -> Measured | None:
    """The mean difference of runs from the same seed; None for cells without two of them."""
    others, differences = second.by_seed, []
    if not first.members or not second.members:
        return None
    for seed, run in first.by_seed.items():
        a, b = value_of(run, quality.name), value_of(others[seed], quality.name) if seed in others else None
        if a and b and run.config.get("num_samples") == others[seed].config.get("num_samples"):
            differences.append(a.value - b.value)
    if len(differences) < 2:
        return None
    found = torch.tensor(differences, dtype=torch.float64)
    return found.mean().item(), found.std().item() / math.sqrt(len(found)), len(found) - 1


def _by_resamples(
    cells: Sequence[CellResult],
    resamples: Sequence[Mapping[str, Tensor]],
    quality: Quality,
    pairs: Sequence[tuple[int, int]],
) -> dict[tuple[int, int], Measured]:
    runs = [cell.runs[0] for cell in cells]
    resampled = {
        i: found[quality.name]
        for i, (run, found) in enumerate(zip(runs, resamples))
        if quality.name in found and found[quality.name].isfinite().all() and value_of(run, quality.name)
    }
    # Another version of diffexp, or a plugin, may write more or fewer of them: only the usual number can be compared.
    usual = Counter(map(len, resampled.values())).most_common(1)
    resampled = {i: found for i, found in resampled.items() if len(found) == usual[0][0]}
    counts = {i: runs[i].config.get("num_samples") for i in resampled}
    pairs = [(i, j) for i, j in pairs if i in resampled and j in resampled and counts[i] == counts[j]]
    if not pairs:
        return {}
    rows = {cell: row for row, cell in enumerate(resampled)}
    covariance = torch.cov(torch.stack(list(resampled.values()))).reshape(len(rows), len(rows))
    values = {cell: found.value for cell in rows if (found := value_of(runs[cell], quality.name))}
    measured = {}
    for i, j in pairs:
        a, b = rows[i], rows[j]
        variance = covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]
        error = math.sqrt(max(variance.item(), 0.0))
        measured[i, j] = values[i] - values[j], error, max(int(counts[i] or 0) - 1, 1)
    return measured


def choose_pairs(placement: Placement) -> tuple[list[tuple[int, int]], str]:
    """Choose the pairs of cells to compare; returns them and a description of the choice.

    All pairs if they are not too many, else those that differ on one axis, else those that are neighbours on it.
    """
    cells = range(len(placement.places))
    every = len(cells) * (len(cells) - 1) // 2
    if every <= MAX_PAIRS:
        return list(combinations(cells, 2)), "every pair of cells"
    pairs, near = _on_one_axis(placement)
    if len(pairs) <= MAX_PAIRS:
        return pairs, f"{len(pairs):,} of the {every:,} pairs of cells: those that differ on one axis only"
    shown = near[:MAX_PAIRS]
    first = "" if len(shown) == len(near) else f"the first of the {len(near):,} "
    return shown, f"{len(shown):,} of the {every:,} pairs of cells: {first or 'those '}that are neighbours on one axis"


def _on_one_axis(placement: Placement) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The pairs of cells that differ on one axis only, and those of them that are neighbours on it."""
    places, pairs, near = np.array(placement.places), list[tuple[int, int]](), list[tuple[int, int]]()
    for first in range(len(places)):
        distances = np.abs(places[first + 1 :] - places[first])
        for other in np.flatnonzero((distances > 0).sum(axis=1) == 1).tolist():
            pairs.append((first, first + 1 + other))
            if distances[other].sum() == 1:
                near.append(pairs[-1])
    return pairs, near


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
    """Write a line per metric and pair; ``better`` is the better cell if the adjusted p-value is below 0.05.

    A cell is named by the folder of its first run; ``seeds`` is the number of seeds that both have.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow("metric first second difference low high p p_holm better noise seeds".split())
    for quality, differences in found:
        for d in differences:
            first, second = cells[d.first], cells[d.second]
            shared = first.by_seed.keys() & second.by_seed.keys()
            better = first if quality.better(d.difference, 0.0) else second
            numbers = (f"{number:.6g}" for number in (d.difference, d.low, d.high, d.p, d.p_holm))
            winner = _relative(better, file) if d.p_holm < REAL else ""
            row = [quality.name, _relative(first, file), _relative(second, file), *numbers, winner]
            writer.writerow([*row, "same" if shared else "different", len(shared)])
    write_text(file, text.getvalue())


def p_value(difference: float, error: float, freedom: int) -> float:
    """The two-sided p-value of a difference with this standard error, estimated with ``freedom`` degrees of freedom."""
    from scipy.special import stdtr  # imported late: it takes a while

    if error == 0.0:
        return 1.0 if difference == 0.0 else 0.0
    return 2 * float(stdtr(freedom, -abs(difference) / error))


def _relative(cell: CellResult, file: Path) -> str:
    return Path(os.path.relpath(cell.folder, file.parent)).as_posix()
