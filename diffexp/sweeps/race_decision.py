"""What is decided at a look: which racers of a group, each of them a cell for every seed, need no more samples."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch

from diffexp.components.metrics.half_samples import spread
from diffexp.components.metrics.significance import p_value
from diffexp.experiment.rounds import HARDLY, WORSE
from diffexp.sweeps.race_record import Look, RaceRecord, is_decided, pair_text
from diffexp.sweeps.sequential import LEVEL, is_hopeless, looks, repeated, shares

MOST_PAIRS = 6000
"""Of larger groups only the pairs with the best racer are compared."""
ALL, ALONE = "all samples are drawn", "no other cell of its cost goes on"
"""Reasons why a racer is out that was not compared to its disadvantage."""

Runs = Mapping[Any, str]
"""The names of the folders of a racer's cells by seed."""
Pair = tuple[int, int]


def decide(record: RaceRecord, group: Sequence[int], runs: Mapping[int, Runs], look: Look) -> None:
    """Decide which racers of a group leave at a look.

    Args:
        record: is changed. It counts this look already, and the racers have their numbers of samples at it.
        group: racers that race, and those that have drawn all samples and are compared with.
        runs: of each racer, those that have all samples of this look.
        look: their values.
    """
    racers = [record.racers[number] for number in group]
    values = {number: value for number in group if (value := _mean_value(runs[number], look.values)) is not None}
    if len(values) > 1:
        best = (max if record.higher else min)(values, key=values.__getitem__)
        _leave(record, best, _compare(record, best, [*values], runs, look))
        if not record.open and all(record.racers[other].why for other in values if other != best):
            record.racers[best].why = ALONE
    for racer in racers:
        if racer.samples == racer.most:
            racer.why = racer.why or ALL


def _compare(
    record: RaceRecord, best: int, racing: Sequence[int], runs: Mapping[int, Runs], look: Look
) -> dict[Pair, float]:
    """Compare racers; record p-values and what they decide, and return those of this look alone."""
    every = math.comb(len(racing), 2) <= MOST_PAIRS
    pairs = [pair for pair in combinations(sorted(racing), 2) if every or best in pair]
    counts = looks(record.racers[best].most)
    count, share = counts[record.looks - 1], shares(counts)[record.looks - 1]
    found = {(i, j): _difference_p(runs[i], runs[j], look, count) for i, j in pairs}
    for pair, p in found.items():
        key = pair_text(*pair)
        record.p_values[key] = repeated(p, share, record.p_values.get(key, 1.0))
    for pair, p in record.adjusted.items():
        if pair in found and is_decided(p):
            record.decided.setdefault(pair_text(*pair), count)
    return found


def _leave(record: RaceRecord, best: int, found: Mapping[Pair, float]) -> None:
    """Let those go that differ from the best racer, and those that will hardly ever be found to.

    Args:
        found: the p-values of pairs at this look alone.
    """
    most, name = record.racers[best].most, record.racers[best].folders[0]
    counts = looks(most)
    count = counts[record.looks - 1]
    needed = LEVEL / max(1, record.tests - len(record.decided)) * shares(counts)[-1]
    whole = record.adjusted
    for pair in (pair for pair in found if best in pair):
        racer = record.racers[sum(pair) - best]
        if racer.why:  # it has drawn all samples
            continue
        if pair_text(*pair) in record.decided:
            racer.beaten_by, racer.why = name, f"{WORSE} {name} (p = {whole[pair]:.1g})"
        elif is_hopeless(found[pair], count, most, needed):
            racer.why = f"{HARDLY} {name} by {most} samples"


def _mean_value(runs: Runs, values: Mapping[str, float]) -> float | None:
    """The mean value over seeds; None where there is none."""
    own = [values[name] for name in runs.values() if name in values]
    return math.fsum(own) / len(own) if own else None


def _difference_p(first: Runs, second: Runs, look: Look, count: int) -> float:
    """The two-sided p-value of the difference of two racers at this look alone."""
    shared = [(first[seed], second[seed]) for seed in first if seed in second]
    pairs = [pair for pair in shared or [*zip(first.values(), second.values())] if look.values.keys() >= {*pair}]
    return p_value(*difference(look, pairs, count)) if pairs else 1.0


def difference(look: Look, pairs: Sequence[tuple[str, str]], count: int) -> tuple[float, float, float]:
    """The mean difference of pairs of runs at a look, its standard error, and the degrees of freedom of that.

    Args:
        pairs: at least one; from the same seed where they are, from a different seed each.
        count: the number of samples of each run.
    """
    found = math.fsum(look.values[a] - look.values[b] for a, b in pairs) / len(pairs)
    variances, freedoms = spread(torch.stack([look.halves[a] - look.halves[b] for a, b in pairs]), count)
    total = variances.sum().item()
    freedom = total**2 / (variances.square() / freedoms).sum().item() if total else float(count - 1)
    return found, math.sqrt(total) / len(pairs), freedom
