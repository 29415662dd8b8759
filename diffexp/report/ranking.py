"""The ranked table at the end of a sweep: a row a cell, seeds as replicates, the best first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from diffexp.report.comparison import REAL, Difference
from diffexp.report.content import Report
from diffexp.report.texts import interval_text
from diffexp.sweeps.values import Quality, Value, cost_of, number_of_samples, value_of
from diffexp.text import quantity

MAX_ROWS = 30
"""Cells that are shown."""
MAX_QUALITIES = 4
"""Metrics that are shown."""
MAX_UNDECIDED = 3
"""Undecided pairs that are named."""
LONGEST = 36
"""Characters of a value of an axis."""
SECONDS = "seconds_per_image"
TITLES = {"forward_passes": "passes", "nfe": "NFE", SECONDS: "s/image"}
BEST, UNDECIDED = "*", "~"


@dataclass(frozen=True)
class Row:
    """A cell in the table."""

    cell: int
    ranks: tuple[int, int]
    """The best and the worst rank that the significant differences leave, among the cells of its condition."""
    rivals: int
    """Cells of its condition that have a value too."""


class Ranking:
    """The order of the finished cells by one metric; only cells of the same condition are ranked against each other.

    The ranks of a cell are all that the comparisons leave, which hold together with 95 % probability (Mogstad, Romano,
    Shaikh and Wilhelm 2024, "Inference for ranks"): from 1 + the number of cells that are significantly better, to the
    number of cells that are not significantly worse. A cell that cannot be compared with others may have any rank.

    Args:
        metric: what to rank by; by default the first metric of the report.
    """

    def __init__(self, report: Report, metric: str | None = None) -> None:
        self.report = report
        done = [i for i, cell in enumerate(report.cells) if cell.status == "done"]
        differing = [quality for quality in report.qualities if self._differs(quality, done)]
        asked = [quality for quality in report.qualities if quality.name == metric]
        self.qualities: list[Quality] = list(dict.fromkeys([*asked, *differing, *report.qualities[:1]]))
        self.conditions = report.conditions.of_cell
        self.done = done

    def _differs(self, quality: Quality, done: Sequence[int]) -> bool:
        values = {found.value for i in done if (found := value_of(self.report.cells[i], quality.name))}
        return len(values) > 1

    @property
    def is_ranked(self) -> bool:
        """Whether at least one cell is significantly better than another."""
        return any(row.ranks != (1, row.rivals) for row in self.rows if row.rivals > 1)

    @cached_property
    def rows(self) -> list[Row]:
        """The finished cells, those of one condition together, the best first; without a metric in their own order."""
        if not self.qualities:
            return [Row(i, (1, len(self.done)), len(self.done)) for i in self.done]
        quality = self.qualities[0]
        better = self.better(quality)
        rows = []
        for condition in dict.fromkeys(self.conditions):
            known = self.valued(quality, condition)
            values = self._values(quality, known)
            rest = [i for i in self.done if self.conditions[i] == condition and i not in known]
            own = []
            for i in sorted(known, key=lambda i: -values[i] if quality.higher else values[i]):
                above = sum((other, i) in better for other in known)
                below = sum((i, other) in better for other in known)
                own.append(Row(i, (1 + above, len(known) - below), len(known)))
            # Values of different numbers of samples are in no order: what is significant comes first.
            rows += sorted(own, key=lambda row: sum(row.ranks)) if self.report.is_raced else own
            rows += [Row(i, (1, len(known)), 0) for i in rest]
        return rows

    def valued(self, quality: Quality, condition: int) -> list[int]:
        """The finished cells of a condition that have a value of a metric."""
        own = [i for i in self.done if self.conditions[i] == condition]
        return [i for i in own if value_of(self.report.cells[i], quality.name)]

    def _values(self, quality: Quality, cells: Sequence[int]) -> dict[int, float]:
        return {i: found.value for i in cells if (found := self.report.value(i, quality.name))}

    def better(self, quality: Quality) -> set[tuple[int, int]]:
        """The pairs of cells of which the first is significantly better than the second."""
        found = (d for d in self._differences(quality) if d.p_holm < REAL)
        return {(d.first, d.second) if quality.better(d.difference, 0.0) else (d.second, d.first) for d in found}

    def _differences(self, quality: Quality) -> Sequence[Difference]:
        return next((found for own, found in self.report.comparisons if own == quality), ())

    @cached_property
    def undecided(self) -> list[Difference]:
        """The undecided pairs of equal cost, by the first metric, of which the number of samples is known that decides.

        The easiest to decide first.
        """
        cells, cost = self.report.cells, self.report.cost
        found = self._differences(self.qualities[0]) if self.qualities else ()
        equal = [
            d for d in found if d.needed and cost_of(cells[d.first], cost) == cost_of(cells[d.second], cost) is not None
        ]
        return sorted(equal, key=lambda d: d.needed or 0)

    def marks(self, quality: Quality) -> dict[int, str]:
        """A mark for the best cell of each condition with several, and for all that are not significantly worse."""
        better, found = self.better(quality), dict[int, str]()
        for condition in dict.fromkeys(self.conditions):
            known = self.valued(quality, condition)
            values = self._values(quality, known)
            if len(set(values.values())) < 2:
                continue
            best = max(known, key=lambda i: values[i] if quality.higher else -values[i])
            found |= {i: UNDECIDED for i in known if (best, i) not in better}
            found |= {i: BEST for i in known if values[i] == values[best]}
        return found


def ranked_table(ranking: Ranking, width: int | None = None) -> Group | None:
    """The table with its title and notes, with as many columns as fit; its rows are cut at ``MAX_ROWS``.

    Args:
        width: of the terminal, in characters; None: whatever the table needs.

    Returns:
        None where no cell is done.
    """
    if not ranking.rows:
        return None
    columns, console = _columns(ranking), Console(width=10_000)
    while True:
        table = _table(ranking, columns)
        over = width is not None and Measurement.get(console, console.options, table).maximum > width
        least = max(columns, key=lambda column: column.optional)
        if not over or not least.optional:
            return Group(_title(ranking), table, _notes(ranking))
        columns.remove(least)
        if least.title == FOLDER:
            columns.append(_number_column(ranking))


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    title: str
    cells: Sequence[Text]
    optional: int = 0
    """Where not all columns fit, the one with the largest number is left out first; never one with 0."""


FOLDER = "folder"


def _table(ranking: Ranking, columns: Sequence[Column]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(Text(column.title.replace("/", "/\n")), overflow="fold")
    rows = ranking.rows[:MAX_ROWS]
    for number, row in enumerate(rows):
        last = number + 1 == len(rows) or ranking.conditions[rows[number + 1].cell] != ranking.conditions[row.cell]
        table.add_row(*(column.cells[number] for column in columns), end_section=last)
    return table


def _columns(ranking: Ranking) -> list[Column]:
    report, cells = ranking.report, [row.cell for row in ranking.rows[:MAX_ROWS]]
    placement = report.placement
    found = [Column("rank", [Text(_rank(row)) for row in ranking.rows[:MAX_ROWS]])] if ranking.is_ranked else []
    for number, axis in enumerate(placement.axes):
        values = [axis.values[placement.places[cell][number]] for cell in cells]
        found.append(Column(axis.name, [Text(_cut(value)) for value in values]))
    if not placement.axes:
        found.append(Column("cell", [Text(report.labels[cell]) for cell in cells]))
    seeds = [len(report.cells[cell].runs) for cell in cells]
    if max(seeds) > 1:
        found.append(Column("seeds", [Text(str(count)) for count in seeds]))
    if report.is_raced:
        found.append(
            Column("samples", aligned([Value(float(report.given[cell][0])) for cell in cells], [""] * len(cells)))
        )
    costs = [_cost(report, cells, report.cost, 0), _cost(report, cells, SECONDS, 9)]
    found += [column for column in costs if column]
    for number, quality in enumerate(ranking.qualities[:MAX_QUALITIES]):
        values = [report.value(cell, quality.name) for cell in cells]
        marks = ranking.marks(quality)
        found.append(Column(quality.name, aligned(values, [marks.get(cell, "") for cell in cells]), number))
    folders = [report.cells[cell].folder for cell in cells]
    return [*found, Column(FOLDER, [Text(folder.name) for folder in folders], 8)]


def _number_column(ranking: Ranking) -> Column:
    """The numbers that the names of the folders begin with."""
    folders = [ranking.report.cells[row.cell].folder for row in ranking.rows[:MAX_ROWS]]
    return Column("cell", [Text(folder.name.partition("_")[0]) for folder in folders])


def _cost(report: Report, cells: Sequence[int], cost: str, optional: int) -> Column | None:
    values = [cost_of(report.cells[cell], cost) for cell in cells]
    known = [value for value in values if value is not None]
    if not known or (optional and cost == report.cost):
        return None
    counted = cost != SECONDS and len(set(known)) > 1  # times are measured, and differ from one day to the next
    marks = [BEST if counted and value == min(known) else "" for value in values]
    return Column(TITLES[cost], aligned([None if v is None else Value(v) for v in values], marks), optional)


def aligned(values: Sequence[Value | None], marks: Sequence[str]) -> list[Text]:
    """Numbers with the same number of decimals, one below the other at the point, with marks and intervals."""
    sizes = [abs(value.value) for value in values if value and value.value]
    small = min(sizes, default=1.0)
    whole = all(size.is_integer() for size in sizes)
    decimals = 0 if whole else min(8, max(0, 2 - math.floor(math.log10(small))))
    if sizes and max(sizes) >= 1e6:
        texts = ["" if value is None else f"{value.value:.4g}" for value in values]
    else:
        texts = ["" if value is None else f"{value.value:.{decimals}f}" for value in values]
    width, marked = max(map(len, texts)), max(map(len, marks))
    intervals = [interval_text(value) if value else "" for value in values]
    found = []
    for text, mark, interval in zip(texts, marks, intervals):
        cell = Text().append(f"{text:>{width}}{mark:{marked}}", style="bold green" if mark == BEST else "")
        found.append(cell.append(f" ({interval})", style="dim") if interval else cell)
    return found


def _rank(row: Row) -> str:
    low, high = row.ranks
    return "" if row.rivals < 2 else f"{low}" if low == high else f"{low}-{high}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _title(ranking: Ranking) -> Text:
    done, cells = len(ranking.done), ranking.report.cells
    title = quantity(done, "cell")
    if ranking.qualities and done > 1:
        quality = ranking.qualities[0]
        direction = "higher" if quality.higher else "lower"
        title += f" {'ranked by' if ranking.is_ranked else 'in the order of'} {quality.name} ({direction} is better)"
    several = any(len(cells[i].members) > 1 for i in ranking.done)
    return Text(title + (", means over seeds" if several else ""), style="bold")


def _drawn(report: Report) -> list[tuple[int, int]]:
    """The samples of each run, and those of its config."""
    return [(number_of_samples(run), int(run.config.get("num_samples") or 0)) for run in report.runs]


def _notes(ranking: Ranking) -> Text:
    report = ranking.report
    shown = {mark for quality in ranking.qualities[:MAX_QUALITIES] for mark in ranking.marks(quality).values()}
    lines = []
    if shown:
        undecided = f", {UNDECIDED} not significantly worse than the best (5 %, Holm)" if UNDECIDED in shown else ""
        lines.append(f"{BEST} best in its column{undecided}; in brackets 95 % intervals")
    if ranking.is_ranked:
        lines.append("rank: all ranks that the significant differences leave open")
    elif len(ranking.done) > 1 and ranking.qualities:
        lines.append("no ranks: the differences between the cells are not significant, or cannot be compared")
    if report.is_raced:
        drawn, most = (sum(counts) for counts in zip(*_drawn(report)))
        lines.append(
            f"stop=decided: {drawn:,} of {most:,} samples were drawn; ranks go by pairs, for values of few are biased"
        )
    if len(set(ranking.conditions)) > 1:
        lines.append("cells with other models, prompts, labels or numbers of samples are ranked apart from each other")
    for d in ranking.undecided[:MAX_UNDECIDED]:
        labels = " and ".join(ranking.report.labels[cell] for cell in (d.first, d.second))
        lines.append(
            f"undecided at equal cost: {labels}; {d.needed_text} a cell would decide, if they differ as it seems"
        )
    hidden = len(ranking.rows) - MAX_ROWS
    if hidden > 0:
        lines.append(f"{hidden} more cells are in results.csv")
    return Text("\n".join(lines), style="dim")
