"""The HTML page that compares cells."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from diffexp.experiment.configs import differing_keys
from diffexp.report.assets import asset
from diffexp.report.axes import ABSENT, Placement, as_text, option_of, place_cells
from diffexp.report.charts import Chart, Curve, marker_definitions
from diffexp.report.comparison import Difference, choose_pairs, compare, read_all_resamples
from diffexp.report.quality import Answer, Line, answers, chart_of, lines_of, points_of
from diffexp.report.thumbnails import Thumbnails, make_thumbnails
from diffexp.report.values import COSTS, Quality, Value, main_cost, metric_names, qualities, value_of
from diffexp.sweeps.replicates import merge_replicates
from diffexp.sweeps.results import CellResult

STYLES = ("chart", "report")
SCRIPTS = ("base", "charts", "pictures", "viewer", "pairs", "results", "start")
MAX_LISTED = 6
"""Up to so many cells that do not differ from the best are listed; of more, the number."""


class Report:
    """The content of a page, computed once.

    Args:
        cells: at least one.
        out: absolute path of the page; links are relative to its folder.
    """

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
        return [self._link(cell.folder) for cell in self.cells]

    def _link(self, folder: Path) -> str:
        return quote(Path(os.path.relpath(folder, self.out.parent)).as_posix()) if folder.is_dir() else ""

    @cached_property
    def pairs(self) -> tuple[list[tuple[int, int]], str]:
        """The pairs of cells that are compared, and a description of the choice."""
        return choose_pairs(self.placement)

    @cached_property
    def comparisons(self) -> list[tuple[Quality, list[Difference]]]:
        """The differences by metric, of the pairs that can be compared."""
        resamples = read_all_resamples(self.cells)
        return [(quality, compare(self.cells, resamples, quality, self.pairs[0])) for quality in self.qualities]

    @cached_property
    def thumbnails(self) -> Thumbnails:
        return make_thumbnails(self.cells)

    def html(self) -> str:
        environment = Environment(
            loader=PackageLoader("diffexp.report"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
        environment.filters |= {"number": number, "interval": interval_text}
        return environment.get_template("report.html.j2").render(
            report=self,
            styles=[asset(f"{name}.css") for name in STYLES],
            scripts=[asset(f"{name}.js") for name in SCRIPTS],
            markers=marker_definitions(),
            data=self.data(),
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            costs=COSTS,
        )

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
            "samples per run": [cell.config.get("num_samples") for cell in self.runs],
            "seed": [cell.config.get("seed") for cell in self.runs],
            "device": [record.get("device") for record in records],
            "dtype": [record.get("dtype") for record in records],
            "commit": [(record.get("git_commit") or "")[:10] for record in records],
            "started": [min((record.get("started") or "" for record in records), default="")[:16].replace("T", " ")],
        }
        facts = [(name, _some(values)) for name, values in known.items()]
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
        both = product(self.qualities, COSTS)
        return [(q, cost, chart) for q, cost in both if (chart := chart_of(self.cells, self.lines, q, cost))]

    def answers(self, quality: Quality) -> list[Answer]:
        found = next(differences for other, differences in self.comparisons if other == quality)
        return answers(points_of(self.cells, quality, self.cost), quality, found)

    def tie_text(self, answer: Answer) -> str:
        if not answer.compared:
            return "not compared"
        if len(answer.ties) > MAX_LISTED:
            return f"{len(answer.ties)} others"
        return "; ".join(self.labels[i] for i in answer.ties) or "none"

    # tables

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics in the order of the columns: costs, quality, the rest."""
        first = [*COSTS, *(quality.name for quality in self.qualities)]
        return sorted(metric_names(self.cells), key=lambda name: first.index(name) if name in first else len(first))

    def value(self, cell: int, name: str) -> Value | None:
        return value_of(self.cells[cell], name)

    @cached_property
    def differences(self) -> list[tuple[str, list[tuple[str, int]]]]:
        """Every config key in which cells differ, with its values and the number of cells for each."""
        configs = [cell.config for cell in self.runs if cell.config]
        found = []
        for key in differing_keys(configs):
            counts = Counter(as_text(config[key]) if key in config else ABSENT for config in configs)
            found.append((key, counts.most_common()))
        return found

    # for the scripts

    def data(self) -> Mapping[str, Any]:
        thumbnails = self.thumbnails
        images = thumbnails.images
        return {
            "axes": [{"name": axis.name, "values": axis.values} for axis in self.placement.axes],
            "cells": [
                {
                    "label": self.labels[i],
                    "place": self.placement.places[i],
                    "status": cell.status,
                    "error": cell.error,
                    "link": self.links[i],
                    "seeds": len(cell.members),
                    "links": [self._link(folder) for folder in thumbnails.folders[i]] if cell.members else [],
                    "pictures": images[i] if images else [],
                    "files": thumbnails.has_files[i],
                    "metrics": {name: value_text(found) for name in self.metrics if (found := value_of(cell, name))},
                }
                for i, cell in enumerate(self.cells)
            ],
            "cost": self.cost,
            "samples": thumbnails.samples,
            "files": thumbnails.files,
            "side": thumbnails.side,
            "shrunk": any(uri and uri.startswith("data:image/jpeg") for found in images for uri in found),
            "qualities": [{"name": quality.name, "higher": quality.higher} for quality in self.qualities],
            "fronts": {f"{q.name}|{cost}": [point.cell for point in chart.front] for q, cost, chart in self.charts},
            "pairs": {
                quality.name: [
                    [d.first, d.second, *(float(f"{n:.4g}") for n in (d.difference, d.low, d.high, d.p, d.p_holm))]
                    for d in found
                ]
                for quality, found in self.comparisons
            },
        }


def seeds_text(cell: CellResult) -> str:
    """The number of seeds of a cell, as the end of its label: `` (3 seeds)``; empty for one."""
    return f" ({len(cell.members)} seeds)" if len(cell.members) > 1 else ""


def value_text(value: Value) -> str:
    """A value with its interval: ``2.65 (2.41 to 2.9)``."""
    interval = interval_text(value)
    return number(value.value) + (f" ({interval})" if interval else "")


def interval_text(value: Value) -> str:
    """The interval of a value: ``2.41 to 2.9``; empty if there is none."""
    return "" if value.low is None or value.high is None else f"{value.low:.3g} to {value.high:.3g}"


def number(value: float) -> str:
    """A number with three to four significant digits; whole numbers in full."""
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{int(value)}"
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.3g}"


def _some(values: Sequence[Any]) -> str:
    """The different values, at most three of them in full."""
    different = list(dict.fromkeys(as_text(value) for value in values if value not in (None, "")))
    return ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")
