"""The metrics of many cells: which there are, which way is up, and which cells are worth their cost."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from diffexp.catalog.discover import discover
from diffexp.experiment.summary import HIGH, LOW
from diffexp.sweeps.results import Cell

COSTS = {"nfe": "model evaluations per sample (NFE)", "seconds_per_image": "seconds per sample"}
NOT_QUALITY = (*COSTS, "images_per_second", "scheduler_us_per_step", "peak_memory_mb")


@dataclass(frozen=True)
class Value:
    """A metric of a cell, with its 95 % interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Quality:
    """A metric that says how good samples are."""

    name: str
    higher: bool
    """Whether larger is better."""

    def better(self, first: float, second: float) -> bool:
        return first > second if self.higher else first < second


def metric_names(cells: Iterable[Cell]) -> list[str]:
    """All metrics, without the ends of intervals."""
    names = dict.fromkeys(name for cell in cells for name in cell.metrics)
    return [name for name in names if not (name.endswith((LOW, HIGH)) and name.rpartition("/")[0] in names)]


def qualities(cells: Sequence[Cell]) -> list[Quality]:
    """The metrics that judge the samples, those of which cells differ first, then those with intervals."""
    higher = higher_is_better()
    found = []
    for name in metric_names(cells):
        values = [value.value for cell in cells if (value := value_of(cell, name))]
        if name in NOT_QUALITY or not values:
            continue
        told = any(f"{name}{LOW}" in cell.metrics for cell in cells)
        found.append(((len(set(values)) == 1, not told), Quality(name, name.partition("/")[0] in higher)))
    return [quality for _, quality in sorted(found, key=lambda entry: entry[0])]


def value_of(cell: Cell, name: str) -> Value | None:
    """None where the cell has no finite value."""
    value, low, high = (_number(cell.metrics.get(key)) for key in (name, f"{name}{LOW}", f"{name}{HIGH}"))
    return None if value is None else Value(value, low, high)


def cost_of(cell: Cell, cost: str) -> float | None:
    """What a sample of the cell cost, one of ``COSTS``; also without ``metric=cost``, from ``run.json``."""
    value = _number(cell.metrics.get(cost))
    if value is not None:
        return value
    if cost == "nfe":
        return _number(cell.record.get("nfe"))
    seconds, drawn = _number(cell.record.get("sampling_seconds")), cell.record.get("drawn")
    return seconds / drawn if seconds and drawn else None


def higher_is_better() -> frozenset[str]:
    """The metrics of which more is better, as they are registered."""
    named = (entry.traits.get("higher_is_better", ()) for entry in discover().of_kind("metric").values())
    return frozenset(name for names in named for name in names)


def pareto_front(points: Sequence[tuple[float, float]], higher: bool) -> list[int]:
    """The points (cost, value) that no other one beats in one respect without being worse in the other, by cost.

    Of equal points only the first counts.
    """
    sign = -1 if higher else 1
    front: list[int] = []
    best = math.inf
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], sign * points[i][1], i)):
        if sign * points[index][1] < best:
            best = sign * points[index][1]
            front.append(index)
    return front


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
