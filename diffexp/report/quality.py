"""Quality over cost: the lines of a chart, its Pareto front, and the best cell for every budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffexp.report.axes import ABSENT, PHRASES, Placement, join_phrases
from diffexp.report.charts import Chart, Curve, Point
from diffexp.report.comparison import REAL, Difference
from diffexp.sweeps.results import CellResult
from diffexp.sweeps.values import COSTS, SHORT_COSTS, Quality, cost_of, pareto_front

MAX_STYLES = 16
"""Up to so many lines each have a style of their own; of more, the lines of one scheduler share a style."""
MAX_BUDGETS = 14


@dataclass(frozen=True)
class Line:
    """Cells that differ only in the cost that they are allowed."""

    name: str
    style: int
    shared: str
    """Name of the style: the line's own, or a common name of all lines in that style."""
    cells: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """The best cell within a budget."""

    budget: float
    best: int
    ties: tuple[int, ...]
    """Cells within the budget that do not differ significantly from it."""
    compared: bool
    """Whether any other cell within the budget could be compared with it."""
    alone: bool
    """Whether there is no other cell within the budget."""


def lines_of(placement: Placement) -> list[Line]:
    """Group all cells into lines."""
    varied = [i for i, axis in enumerate(placement.axes) if axis.name not in PHRASES]
    members: dict[tuple[int, ...], list[int]] = {}
    for cell, place in enumerate(placement.places):
        members.setdefault(tuple(place[i] for i in varied), []).append(cell)
    axes = [placement.axes[i] for i in varied]
    main = next((i for i, axis in enumerate(axes) if axis.name == "scheduler"), 0)
    found = []
    for number, (place, cells) in enumerate(members.items()):
        name = join_phrases(axes, place) or "all cells"
        if len(members) <= MAX_STYLES:
            found.append(Line(name, number, name, tuple(cells)))
        else:
            found.append(Line(name, place[main], axes[main].phrase(place[main]) or ABSENT, tuple(cells)))
    return found


def points_of(cells: Sequence[CellResult], quality: Quality, cost: str) -> dict[int, Point]:
    """The points by cell, of finished cells that have metric and cost; an unfinished cell has fewer samples."""
    points = {}
    for i, cell in enumerate(cells):
        if cell.status != "done":
            continue
        found, spent = quality.of(cell), cost_of(cell, cost)
        if found and spent is not None and spent > 0:
            points[i] = Point(i, spent, found.value, found.low, found.high, found.few)
    return points


def front_of(points: Mapping[int, Point], quality: Quality) -> list[Point]:
    """The Pareto front: points that no other beats in quality or cost without being worse in the other, by cost."""
    known = [point for point in points.values() if not point.few]
    return [known[i] for i in pareto_front([(point.x, point.y) for point in known], quality.higher)]


def chart_of(
    cells: Sequence[CellResult], lines: Sequence[Line], quality: Quality, cost: str, note: str = "", ranked: bool = True
) -> Chart | None:
    """The chart of a metric over a cost; None if no cell has both.

    Args:
        note: a second line of its title.
        ranked: whether the cells can be ranked: only then there is a Pareto front.
    """
    points = points_of(cells, quality, cost)
    if not points:
        return None
    curves = [
        Curve(line.name, line.style, [points[i] for i in line.cells if i in points])
        for line in lines
        if any(i in points for i in line.cells)
    ]
    direction = "higher is better" if quality.higher else "lower is better"
    return Chart(
        title=f"{quality.name} over {SHORT_COSTS[cost]}",
        x_label=COSTS[cost],
        y_label=f"{quality.name} ({direction})",
        curves=curves,
        front=front_of(points, quality) if ranked else (),
        note=note,
    )


def answers(points: Mapping[int, Point], quality: Quality, differences: Sequence[Difference]) -> list[Answer]:
    """The best cell for every budget; of very many budgets, for some of them.

    Args:
        points: the cells, of one condition, over the cost that budgets limit.
        differences: the differences in this metric.
    """
    budgets = sorted({point.x for point in points.values()})
    if len(budgets) > MAX_BUDGETS:
        last = len(budgets) - 1
        budgets = [budgets[round(i * last / (MAX_BUDGETS - 1))] for i in range(MAX_BUDGETS)]
    by_pair = {frozenset((d.first, d.second)): d for d in differences}
    sign = -1 if quality.higher else 1
    found = []
    for budget in budgets:
        within = [i for i, point in points.items() if point.x <= budget]
        best = min(within, key=lambda i: (sign * points[i].y, points[i].x))
        against = {i: d for i in within if (d := by_pair.get(frozenset((i, best))))}
        ties = tuple(i for i, d in against.items() if d.p_holm >= REAL)
        found.append(Answer(budget, best, ties, bool(against), len(within) == 1))
    return found
