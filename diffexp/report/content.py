"""What a comparison of cells shows: on the page, in charts, tables and trackers."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from urllib.parse import quote

from diffexp.experiment.configs import differing_keys
from diffexp.experiment.rounds import Round
from diffexp.report.axes import ABSENT, Placement, as_text, option_of, place_cells
from diffexp.report.charts import Chart, Curve, Point
from diffexp.report.comparison import Difference, choose_pairs, compare, read_all_halves
from diffexp.report.progress_state import State
from diffexp.report.quality import Answer, Line, answers, chart_of, lines_of, points_of
from diffexp.report.raced import Raced
from diffexp.report.texts import decimals, number, seeds_text, some_of
from diffexp.report.thumbnails import Thumbnails, make_thumbnails
from diffexp.report.warnings import warnings_of
from diffexp.sweeps.conditions import Conditions, conditions
from diffexp.sweeps.replicates import merge_replicates
from diffexp.sweeps.results import CellResult
from diffexp.sweeps.values import (
    COSTS,
    Quality,
    Value,
    main_cost,
    metric_names,
    number_of_samples,
    qualities,
    value_of,
)


class Report:
    """The content of a comparison, computed once.

    Args:
        cells: at least one.
        out: absolute path of the page; links are relative to its folder.
    """

    live: State | None = None
    """How far the runs are, on a page that is written while they run."""

    def __init__(self, cells: Sequence[CellResult], out: Path) -> None:
        self.runs = cells
        self.cells = merge_replicates(cells)
        """Runs that differ in nothing but the seed are one cell."""
        self.out = out
        self.placement: Placement = place_cells(self.cells)
        self.qualities = qualities(self.cells)
        self.cost = main_cost(self.cells)
        """The cost that is shown first, and that budgets limit."""

    @cached_property
    def labels(self) -> list[str]:
        """The labels of the cells."""
        return [self._place(i) + seeds_text(cell) for i, cell in enumerate(self.cells)]

    def _place(self, cell: int) -> str:
        if self.placement.axes:
            return self.placement.label(cell)
        config = self.cells[cell].config
        return f"{option_of(config, 'scheduler')} · {config.get('steps', '?')} steps"

    @cached_property
    def links(self) -> list[str]:
        """Relative URLs of the run folders; empty for a cell that never began."""
        return [self.link(cell.folder) for cell in self.cells]

    def link(self, folder: Path) -> str:
        """The relative URL of a folder; empty if it does not exist."""
        return quote(Path(os.path.relpath(folder, self.out.parent)).as_posix()) if folder.is_dir() else ""

    @cached_property
    def pairs(self) -> tuple[list[tuple[int, int]], str]:
        """The pairs of cells that are compared, and a description of the choice."""
        return choose_pairs(self.placement, self.conditions.of_cell)

    @cached_property
    def comparisons(self) -> list[tuple[Quality, list[Difference]]]:
        """The differences by metric, of the pairs that can be compared."""
        halves = read_all_halves(self.cells)
        raced = Raced(self.cells)
        return [(quality, compare(self.cells, halves, quality, self.pairs[0], raced)) for quality in self.qualities]

    @cached_property
    def is_raced(self) -> bool:
        """Whether cells have drawn samples until it was clear how they compare."""
        return any(Round.of(cell.record) for cell in self.runs)

    @cached_property
    def given(self) -> list[tuple[int, str]]:
        """The samples of a run of each cell, and why it was given no more."""
        rounds = [Round.of(cell.runs[0].record) for cell in self.cells]
        return [(number_of_samples(cell.runs[0]), now.why if now else "") for cell, now in zip(self.cells, rounds)]

    @cached_property
    def thumbnails(self) -> Thumbnails:
        return make_thumbnails(self.cells)

    @property
    def shrunk(self) -> bool:
        """Whether images are shown smaller than they are."""
        return any(uri and uri.startswith("data:image/jpeg") for found in self.thumbnails.images for uri in found)

    # the head

    @property
    def title(self) -> str:
        parents = dict.fromkeys(cell.folder.resolve().parent for cell in self.runs)
        if len(self.runs) == 1:
            return self.runs[0].folder.resolve().name
        names = [f"{parent.parent.name}/{parent.name}" for parent in parents]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    @property
    def statuses(self) -> list[tuple[str, int]]:
        return Counter(cell.status for cell in self.runs).most_common()

    @cached_property
    def replicated(self) -> bool:
        """Whether some cells are means over several seeds."""
        return any(cell.members for cell in self.cells)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """The settings of the cells; where they differ, all values."""
        records = [cell.record for cell in self.runs if cell.record]
        seconds = sum(record.get("seconds") or 0 for record in records)
        known = {
            "model": [record.get("model_id") for record in records],
            "samples per run": [number_of_samples(cell) or None for cell in self.runs],
            "seed": [cell.config.get("seed") for cell in self.runs],
            "device": [record.get("device") for record in records],
            "dtype": [record.get("dtype") for record in records],
            "commit": [(record.get("git_commit") or "")[:10] for record in records],
            "started": [min((record.get("started") or "" for record in records), default="")[:16].replace("T", " ")],
        }
        facts = [(name, some_of(values)) for name, values in known.items()]
        facts.append(("time of all cells", f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s"))
        return [(name, text) for name, text in facts if text]

    # quality over cost

    @cached_property
    def lines(self) -> list[Line]:
        return lines_of(self.placement)

    @cached_property
    def legend(self) -> list[Curve]:
        """A curve for each style of the charts, under the style's name; without points."""
        judged = {i for quality in self.qualities for i, cell in enumerate(self.cells) if value_of(cell, quality.name)}
        styles = {line.style: line.shared for line in self.lines if judged.intersection(line.cells)}
        return [Curve(name, style, ()) for style, name in styles.items()]

    @cached_property
    def charts(self) -> list[tuple[Quality, str, Chart]]:
        """The chart of every metric and cost that cells have both of."""
        ranked = len(self.conditions.values) == 1
        return [
            (quality, cost, chart)
            for quality, cost in product(self.qualities, COSTS)
            if (chart := chart_of(self.cells, self.lines, quality, cost, self.common, ranked))
        ]

    @cached_property
    def common(self) -> str:
        """What all cells have in common, for the titles of charts: model, number of samples, number of seeds."""
        counts = {"samples": self._all("num_samples"), "seeds": {len(cell.runs) for cell in self.cells}}
        models = {option_of(cell.config, "model") for cell in self.cells if cell.config}
        parts = ["several models" if len(models) > 3 else ", ".join(sorted(models))]
        for name, found in counts.items():
            if found and (found := sorted(found)) and (name == "samples" or found[-1] > 1):
                parts.append(f"{found[0]:,}{f' to {found[-1]:,}' if len(found) > 1 else ''} {name}")
        return " · ".join(filter(None, parts))

    def _all(self, key: str) -> set[int]:
        return {value for cell in self.cells if isinstance(value := cell.config.get(key), int)}

    # ranking

    @cached_property
    def conditions(self) -> Conditions:
        return conditions(self.cells)

    def answers(self, quality: Quality, cost: str | None = None) -> list[Answer]:
        """The best cell for every budget of a cost, by default the main one, of each condition."""
        found = next(differences for other, differences in self.comparisons if other == quality)
        points = points_of(self.cells, quality, cost or self.cost)
        return [answer for own in self._by_condition(points) for answer in answers(own, quality, found)]

    @property
    def compared(self) -> bool:
        """Whether any two cells could be compared."""
        return any(found for _, found in self.comparisons)

    def _by_condition(self, points: Mapping[int, Point]) -> list[dict[int, Point]]:
        groups = [
            {i: point for i, point in points.items() if self.conditions.of_cell[i] == number}
            for number in range(len(self.conditions.values))
        ]
        return [own for own in groups if own]

    @cached_property
    def warnings(self) -> list[str]:
        return warnings_of(self.cells, self.qualities, self.conditions)

    # tables

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics in the order of the columns: costs, quality, the rest."""
        first = [*COSTS, *(quality.name for quality in self.qualities)]
        return sorted(metric_names(self.cells), key=lambda name: first.index(name) if name in first else len(first))

    def value(self, cell: int, name: str) -> Value | None:
        return value_of(self.cells[cell], name)

    @cached_property
    def padding(self) -> dict[str, int]:
        """For each metric the most digits after the point that a value of it is shown with."""
        return {
            name: max(
                (decimals(number(v.value)) for i in range(len(self.cells)) if (v := self.value(i, name))), default=0
            )
            for name in self.metrics
        }

    @cached_property
    def differences(self) -> list[tuple[str, list[tuple[str, int]]]]:
        """Every config key in which cells differ, with its values and the number of cells for each."""
        configs = [cell.config for cell in self.runs if cell.config]
        found = []
        for key in differing_keys(configs):
            counts = Counter(as_text(config[key]) if key in config else ABSENT for config in configs)
            found.append((key, counts.most_common()))
        return found
