"""The metrics of many cells, their direction, and the cells that are worth their cost."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from diffexp.components.metrics.traits import higher_is_better, needed, needed_by
from diffexp.experiment.rounds import Round
from diffexp.experiment.summary import HIGH, LOW
from diffexp.sweeps.results import CellResult

COSTS = {
    "forward_passes": "forward passes per sample, guidance included",
    "nfe": "model evaluations per sample (NFE)",
    "seconds_per_image": "seconds per sample",
}
"""Costs with their descriptions, first the one that is shown where all cells have it."""
SHORT_COSTS = {"forward_passes": "forward passes", "nfe": "NFE", "seconds_per_image": "seconds per sample"}
"""Costs as in titles and the heads of tables."""
NOT_QUALITY = (*COSTS, "images_per_second", "scheduler_us_per_step", "peak_memory_mb")


@dataclass(frozen=True)
class Value:
    """The value of a metric for a cell, with its 95 % interval if there is one."""

    value: float
    low: float | None = None
    high: float | None = None
    few: bool = False
    """Whether it is of fewer samples than its metric needs: such values are shown, and not ranked."""


@dataclass(frozen=True)
class Quality:
    """A metric of the quality of samples."""

    name: str
    higher: bool
    """Whether larger is better."""
    needed: int = field(default=0, compare=False)
    """Samples of a run without which its values are not ranked."""

    def of(self, cell: CellResult) -> Value | None:
        """Its value for a cell; None if it is missing or not finite."""
        return value_of(cell, self.name, self.needed)

    def better(self, first: float, second: float) -> bool:
        return first > second if self.higher else first < second


def metric_names(cells: Iterable[CellResult]) -> list[str]:
    """The names of all metrics, without the ends of intervals."""
    names = dict.fromkeys(name for cell in cells for name in cell.metrics)
    return [name for name in names if not (name.endswith((LOW, HIGH)) and name.rpartition("/")[0] in names)]


def qualities(cells: Sequence[CellResult]) -> list[Quality]:
    """The metrics of quality, first those with enough samples in which the cells differ, then those with intervals."""
    higher, known = higher_is_better(), needed()
    found = []
    for name in metric_names(cells):
        own = Quality(name, name.partition("/")[0] in higher, needed_by(name, known))
        values = [value for cell in cells if (value := own.of(cell))]
        if name in NOT_QUALITY or not values:
            continue
        with_interval = any(f"{name}{LOW}" in cell.metrics for cell in cells)
        few, same = all(value.few for value in values), len({value.value for value in values}) == 1
        found.append(((few, same, not with_interval), own))
    return [quality for _, quality in sorted(found, key=lambda entry: entry[0])]


def value_of(cell: CellResult, name: str, needed: int = 0) -> Value | None:
    """The value of a metric for a cell; None if it is missing or not finite.

    Args:
        needed: samples of each run without which it is not ranked.
    """
    value, low, high = (_number(cell.metrics.get(key)) for key in (name, f"{name}{LOW}", f"{name}{HIGH}"))
    return None if value is None else Value(value, low, high, 0 < number_of_samples(cell) < needed)


def cost_of(cell: CellResult, cost: str) -> float | None:
    """The cost per sample, one of ``COSTS``; without ``metric=cost`` it is read from ``run.json``."""
    value = _number(cell.metrics.get(cost))
    if value is not None:
        return value
    if cost in ("forward_passes", "nfe"):
        return _number(cell.record.get(cost))
    seconds, drawn = _number(cell.record.get("sampling_seconds")), cell.record.get("drawn")
    return seconds / drawn if seconds and drawn else None


def number_of_samples(cell: CellResult) -> int:
    """The number of samples of a run: as its config says, or fewer where it left a race; 0 where it is unknown."""
    now, found = Round.of(cell.record), cell.config.get("num_samples")
    return now.samples if now else found if isinstance(found, int) else 0


def main_cost(cells: Sequence[CellResult]) -> str:
    """The first of ``COSTS`` that every finished cell has; runs of older versions do not count forward passes."""
    done = [cell for cell in cells if cell.status == "done"]
    return next((cost for cost in COSTS if all(cost_of(cell, cost) is not None for cell in done)), "nfe")


def pareto_front(points: Sequence[tuple[float, float]], higher: bool) -> list[int]:
    """Indices of the points (cost, value) on the Pareto front, by cost; of equal points the first."""
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
