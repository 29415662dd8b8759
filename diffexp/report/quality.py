"""Quality over cost: the lines of a chart, its Pareto front, and the best cell for every budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffexp.report.axes import PHRASES, Axis, Layout
from diffexp.report.charts import Chart, Point, Series
from diffexp.report.comparison import REAL, Difference
from diffexp.report.values import COSTS, Quality, cost_of, pareto_front, value_of
from diffexp.sweeps.results import Cell

MOST_STYLES = 16
"""So many lines have a look of their own; of more, those of one scheduler share one."""
MOST_BUDGETS = 14


@dataclass(frozen=True)
class Line:
    """Cells that differ in nothing but what they may cost."""

    name: str
    style: int
    shared: str
    """Name of the style: the line's own, or that of all lines which look like it."""
    cells: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """The best cell within a budget of evaluations."""

    nfe: float
    best: int
    ties: tuple[int, ...]
    """Cells within the budget from which it cannot be told apart."""
    compared: bool


def lines_of(layout: Layout) -> list[Line]:
    """All cells as lines."""
    kept = [i for i, axis in enumerate(layout.axes) if axis.name not in PHRASES]
    members: dict[tuple[int, ...], list[int]] = {}
    for cell, place in enumerate(layout.places):
        members.setdefault(tuple(place[i] for i in kept), []).append(cell)
    axes = [layout.axes[i] for i in kept]
    main = next((i for i, axis in enumerate(axes) if axis.name == "scheduler"), 0)
    found = []
    for number, (place, cells) in enumerate(members.items()):
        name = _name(axes, place) or "all cells"
        if len(members) <= MOST_STYLES:
            found.append(Line(name, number, name, tuple(cells)))
        else:
            found.append(Line(name, place[main], axes[main].say(place[main]), tuple(cells)))
    return found


def points_of(cells: Sequence[Cell], quality: Quality, cost: str) -> dict[int, Point]:
    """By cell, those that are done and have both: what an unfinished one has is of fewer samples than the others'."""
    points = {}
    for i, cell in enumerate(cells):
        if cell.status != "done":
            continue
        found, spent = value_of(cell, quality.name), cost_of(cell, cost)
        if found and spent is not None and spent > 0:
            points[i] = Point(i, spent, found.value, found.low, found.high)
    return points


def front_of(points: Mapping[int, Point], quality: Quality) -> list[Point]:
    """Those that no other beats in quality or cost without being worse in the other, by cost."""
    known = list(points.values())
    return [known[i] for i in pareto_front([(point.x, point.y) for point in known], quality.higher)]


def chart_of(cells: Sequence[Cell], lines: Sequence[Line], quality: Quality, cost: str) -> Chart | None:
    """None where no cell has both metric and cost."""
    points = points_of(cells, quality, cost)
    if not points:
        return None
    series = [
        Series(line.name, line.style, [points[i] for i in line.cells if i in points])
        for line in lines
        if any(i in points for i in line.cells)
    ]
    direction = "higher is better" if quality.higher else "lower is better"
    return Chart(
        title=f"{quality.name} over {COSTS[cost]}: {len(points)} cells in {len(series)} lines",
        x_label=COSTS[cost],
        y_label=f"{quality.name} ({direction})",
        series=series,
        front=front_of(points, quality),
    )


def answers(points: Mapping[int, Point], quality: Quality, differences: Sequence[Difference]) -> list[Answer]:
    """For every number of evaluations the best cell that needs no more; of very many numbers, some.

    Args:
        points: over ``nfe``.
        differences: of this quality.
    """
    budgets = sorted({point.x for point in points.values()})
    if len(budgets) > MOST_BUDGETS:
        last = len(budgets) - 1
        budgets = [budgets[round(i * last / (MOST_BUDGETS - 1))] for i in range(MOST_BUDGETS)]
    told = {frozenset((d.first, d.second)): d for d in differences}
    sign = -1 if quality.higher else 1
    found = []
    for budget in budgets:
        within = [i for i, point in points.items() if point.x <= budget]
        best = min(within, key=lambda i: (sign * points[i].y, points[i].x))
        against = {i: d for i in within if (d := told.get(frozenset((i, best))))}
        ties = tuple(i for i, d in against.items() if d.p_holm >= REAL)
        found.append(Answer(budget, best, ties, bool(against)))
    return found


def _name(axes: Sequence[Axis], place: Sequence[int]) -> str:
    return " · ".join(axis.say(value) for axis, value in zip(axes, place))
