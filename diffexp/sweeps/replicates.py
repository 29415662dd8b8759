"""Seeds as replicates: runs that differ in nothing but the seed are one cell, with means over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from diffexp.experiment.configs import KEYS_OF_THE_REPORT
from diffexp.experiment.summary import HIGH, LOW
from diffexp.sweeps.results import CellResult

IRRELEVANT_KEYS = ("seed", *KEYS_OF_THE_REPORT)
"""Config keys in which replicates may differ: the seed, and keys that affect neither samples nor cost."""
IDENTITY = ("model_id", "weights_sha256", "plan_sha256", "inputs_sha256", "code_sha256", "device", "dtype")
"""Entries of ``run.json`` that replicates have in common."""


def merge_replicates(cells: Sequence[CellResult]) -> list[CellResult]:
    """The cells with those in one that are the same but for the seed, in the order of their first ones.

    A merged cell has the metrics ``mean_metrics`` of its finished runs, one for each seed, as ``members``; its folder,
    config and record are those of the lowest seed. Runs that have not finished count where no other has.
    """
    groups: dict[str, list[tuple[tuple[Any, ...] | None, list[CellResult]]]] = {}
    for cell in cells:
        facts = tuple(cell.record.get(key) for key in IDENTITY) if cell.status == "done" else None
        alike = groups.setdefault(_key(cell), [])
        # A run that has not finished need not know its hashes: it belongs to any of its config.
        own = next((group for known, group in alike if None in (known, facts) or known == facts), None)
        if own is None or not cell.config:
            alike.append((facts, [cell]))
        else:
            own.append(cell)
    return [_merged(group) for alike in groups.values() for _, group in alike]


def mean_metrics(members: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every metric over runs, and Student's 95 % interval, within its range, where two or more differ."""
    from diffexp.components.metrics.intervals import student_interval  # imports torch, which takes seconds
    from diffexp.components.metrics.traits import ranges

    if len(members) == 1:
        return dict(members[0])
    names = dict.fromkeys(name for metrics in members for name in metrics)
    found: dict[str, float] = {}
    known = ranges()
    for name in names:
        if name.endswith((LOW, HIGH)) and name.rpartition("/")[0] in names:  # of single runs
            continue
        values = [value for metrics in members if isinstance(value := metrics.get(name), int | float)]
        if not values:
            continue
        found[name] = values[0] if len({*values}) == 1 else math.fsum(values) / len(values)
        if len({*values}) > 1 and all(map(math.isfinite, values)):
            least, most = known.get(name.partition("/")[0], (-math.inf, math.inf))
            low, high = student_interval(values)
            found[f"{name}{LOW}"], found[f"{name}{HIGH}"] = max(low, least), min(high, most)
    return found


def _key(cell: CellResult) -> str:
    config = {key: value for key, value in cell.config.items() if key.partition(".")[0] not in IRRELEVANT_KEYS}
    return repr(sorted(config.items())) if config else str(cell.folder)


def _merged(group: Sequence[CellResult]) -> CellResult:
    if len(group) == 1:
        return group[0]
    by_seed: dict[Any, CellResult] = {}
    for cell in (cell for cell in group if cell.status == "done"):
        seed = cell.config.get("seed")
        first = by_seed.setdefault(seed, cell)
        by_seed[seed] = replace(first, metrics={**cell.metrics, **first.metrics})  # measured in different ways
    if not by_seed:
        return group[0]
    members = tuple(by_seed[seed] for seed in sorted(by_seed, key=lambda seed: seed or 0))
    error = next((cell.error for cell in group if cell.error), None)
    return replace(members[0], metrics=mean_metrics([one.metrics for one in members]), error=error, members=members)
