"""Significance of the differences between cells: for each pair a difference, its 95 % interval and a p-value.

Runs of one seed start from the same noise, whose common effect cancels in the difference. Cells of several seeds are
compared seed by seed; others by their values on the same halves of the samples (``components.metrics.half_samples``).
Standard errors are estimates, so the intervals and p-values are those of Student's t.
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

from diffexp.components.metrics.half_samples import spread
from diffexp.components.metrics.intervals import t_quantile
from diffexp.components.metrics.significance import holm, holm_tests, p_value
from diffexp.experiment.per_sample import read_halves
from diffexp.files import write_text
from diffexp.report.axes import Placement
from diffexp.report.power import samples_to_decide
from diffexp.report.raced import Raced
from diffexp.sweeps.results import CellResult
from diffexp.sweeps.values import Quality, number_of_samples, value_of

NAME = "comparison.csv"
MAX_PAIRS = 6000
"""Pairs compared per metric."""
AT_ONCE = 500
"""Pairs whose values are in memory."""
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
    needed: int | None = None
    """How many samples a cell would decide what is undecided; where cells are compared seed by seed, how many seeds."""
    by_seed: bool = False
    """Whether the cells are compared seed by seed."""
    samples: int = 0
    """Of each run that is compared."""

    @property
    def needed_text(self) -> str:
        """``2,300 samples``, ``14 seeds``; empty where it is decided, or where no number would decide it."""
        return "" if self.needed is None else f"{self.needed:,} {'seeds' if self.by_seed else 'samples'}"


def read_all_halves(cells: Sequence[CellResult]) -> list[dict[str, Tensor]]:
    """The values of each cell on halves of its samples, by metric; none for cells that are not done."""
    return [read_halves(cell.folder) if cell.status == "done" else {} for cell in cells]


def compare(
    cells: Sequence[CellResult],
    halves: Sequence[Mapping[str, Tensor]],
    quality: Quality,
    pairs: Sequence[tuple[int, int]],
    raced: Raced | None = None,
) -> list[Difference]:
    """The differences of those pairs that can be compared, in the same order.

    Cells with two or more seeds in common are compared seed by seed (paired t-test), others by halves of the samples of
    their first run, of which both need equally many.

    Args:
        raced: compares cells that left their race at different numbers of samples, at what both have; the pairs that it
            has decided have its p-value.
    """
    over_seeds = {(i, j): found for i, j in pairs if (found := _over_seeds(cells[i], cells[j], quality))}
    split = _by_halves(cells, halves, quality, [pair for pair in pairs if pair not in over_seeds])
    found = {
        pair: measured
        for pair in pairs
        if (measured := over_seeds.get(pair) or split.get(pair) or _at_common(raced, pair, quality))
    }
    p_values = [p_value(one.difference, one.error, one.freedom) for one in found.values()]
    differences = []
    for (pair, own), p, p_holm, times in zip(found.items(), p_values, holm(p_values), holm_tests(p_values)):
        decided = raced.p_value(*pair, quality.name) if raced else None
        p_holm = p_holm if decided is None else min(p_holm, decided)
        width, needed = t_quantile(own.freedom) * own.error, own.to_decide(times) if p_holm >= REAL else None
        ends = own.difference - width, own.difference + width
        by_seed = pair in over_seeds
        differences.append(Difference(*pair, own.difference, *ends, p, p_holm, needed, by_seed, own.samples))
    return differences


@dataclass(frozen=True)
class Measured:
    """A difference with its standard error."""

    difference: float
    error: float
    freedom: float
    """Degrees of freedom of the error."""
    count: int
    """The samples, or the seeds, that it is known from."""
    samples: int
    """Of each run."""

    def to_decide(self, tests: int) -> int | None:
        """See ``samples_to_decide``."""
        return samples_to_decide(self.difference, self.error, self.freedom, self.count, tests, REAL)


def _at_common(raced: Raced | None, pair: tuple[int, int], quality: Quality) -> Measured | None:
    found = raced.difference(*pair, quality.name) if raced else None
    return Measured(*found, found[3]) if found else None


def _over_seeds(first: CellResult, second: CellResult, quality: Quality) -> Measured | None:
    """The mean difference of runs from the same seed; None for cells without two of them."""
    others, differences = second.by_seed, []
    if not first.members or not second.members:
        return None
    for seed, run in first.by_seed.items():
        a, b = value_of(run, quality.name), value_of(others[seed], quality.name) if seed in others else None
        if a and b and number_of_samples(run) == number_of_samples(others[seed]):
            differences.append(a.value - b.value)
    if len(differences) < 2:
        return None
    found = torch.tensor(differences, dtype=torch.float64)
    error, samples = found.std().item() / math.sqrt(len(found)), number_of_samples(first.runs[0])
    return Measured(found.mean().item(), error, len(found) - 1, len(found), samples)


def _by_halves(
    cells: Sequence[CellResult],
    halves: Sequence[Mapping[str, Tensor]],
    quality: Quality,
    pairs: Sequence[tuple[int, int]],
) -> dict[tuple[int, int], Measured]:
    runs = [cell.runs[0] for cell in cells]
    known = {
        i: found[quality.name]
        for i, (run, found) in enumerate(zip(runs, halves))
        if quality.name in found and found[quality.name].isfinite().all() and value_of(run, quality.name)
    }
    # Other versions of diffexp, and plugins, may write more or fewer splits, which cannot be compared.
    counts = {i: (number_of_samples(runs[i]), *values.shape) for i, values in known.items()}
    pairs = [(i, j) for i, j in pairs if i in known and j in known and counts[i] == counts[j]]
    values = {i: found.value for i in known if (found := value_of(runs[i], quality.name))}
    measured: dict[tuple[int, int], Measured] = {}
    for counted in {counts[i] for i, _ in pairs}:
        count, alike = counted[0], [pair for pair in pairs if counts[pair[0]] == counted]
        for some in (alike[first : first + AT_ONCE] for first in range(0, len(alike), AT_ONCE)):
            first, second = (torch.stack([known[pair[side]] for pair in some]) for side in (0, 1))
            found = zip(some, *(part.tolist() for part in spread(first - second, count)))
            measured |= {
                (i, j): Measured(values[i] - values[j], math.sqrt(v), freedom, count, count)
                for (i, j), v, freedom in found
            }
    return measured


def choose_pairs(placement: Placement, of_cell: Sequence[int]) -> tuple[list[tuple[int, int]], str]:
    """Choose the pairs of cells to compare; returns them and a description of the choice.

    Of cells of the same condition all pairs if they are not too many, else those that differ on one axis, else those
    that are neighbours on it. Cells of different conditions are no alternatives: their pairs would only make the
    correction for the number of pairs larger.

    Args:
        of_cell: for each cell the number of its condition; see ``sweeps.conditions``.
    """
    every = sum(count * (count - 1) // 2 for count in Counter(of_cell).values())
    of = "pairs of cells" if len({*of_cell}) < 2 else "pairs of cells of the same condition"
    if every <= MAX_PAIRS:
        pairs = [pair for pair in combinations(range(len(of_cell)), 2) if of_cell[pair[0]] == of_cell[pair[1]]]
        return pairs, f"every {of.replace('pairs', 'pair')}"
    pairs, near = _on_one_axis(placement, of_cell)
    if len(pairs) <= MAX_PAIRS:
        return pairs, f"{len(pairs):,} of the {every:,} {of}: those that differ on one axis only"
    shown = near[:MAX_PAIRS]
    first = "" if len(shown) == len(near) else f"the first of the {len(near):,} "
    return shown, f"{len(shown):,} of the {every:,} {of}: {first or 'those '}that are neighbours on one axis"


def _on_one_axis(placement: Placement, of_cell: Sequence[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The pairs of a condition that differ on one axis only, and those of them that are neighbours on it."""
    places, pairs, near = np.array(placement.places), list[tuple[int, int]](), list[tuple[int, int]]()
    own = np.array(of_cell)
    for first in range(len(places)):
        distances = np.abs(places[first + 1 :] - places[first])
        alike = own[first + 1 :] == own[first]
        for other in np.flatnonzero(((distances > 0).sum(axis=1) == 1) & alike).tolist():
            pairs.append((first, first + 1 + other))
            if distances[other].sum() == 1:
                near.append(pairs[-1])
    return pairs, near


def write_comparison(
    file: Path, cells: Sequence[CellResult], placement: Placement, found: Sequence[tuple[Quality, Sequence[Difference]]]
) -> None:
    """Write a line per metric and pair; ``better`` is the better cell if the adjusted p-value is below 0.05.

    A cell is named by the folder of its first run; ``seeds`` is the number of seeds that both have, ``needed`` how
    many samples (of cells compared by two or more seeds: seeds) would decide an undecided pair, ``samples`` how many
    of each run were compared.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow("metric first second difference low high p p_holm better noise seeds needed samples".split())
    for quality, differences in found:
        for d in differences:
            first, second = cells[d.first], cells[d.second]
            shared = first.by_seed.keys() & second.by_seed.keys()
            better = first if quality.better(d.difference, 0.0) else second
            numbers = (f"{number:.6g}" for number in (d.difference, d.low, d.high, d.p, d.p_holm))
            winner = _relative(better, file) if d.p_holm < REAL else ""
            row = [quality.name, _relative(first, file), _relative(second, file), *numbers, winner]
            noise = "same" if shared else "different"
            writer.writerow([*row, noise, len(shared), "" if d.needed is None else d.needed, d.samples])
    write_text(file, text.getvalue())


def _relative(cell: CellResult, file: Path) -> str:
    return Path(os.path.relpath(cell.folder, file.parent)).as_posix()
