"""What Python gets of a sweep: its runs, its table, the best of them, its page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from diffexp.report import NAME
from diffexp.sweeps.failures import Failure
from diffexp.sweeps.results import read_cells

if TYPE_CHECKING:
    import pandas as pd

    from diffexp.drawing import Drawing
    from diffexp.experiment.result import RunResult
    from diffexp.report.runs import Runs

MAX_FAILURES = 10
"""Up to so many are shown in a notebook."""


@dataclass(frozen=True)
class SweepResult:
    """A sweep: in a notebook the table of its cells, everything else as attributes.

    Example:
        >>> import diffexp
        >>> swept = diffexp.sweep(scheduler=["ddpm", "ddim"], steps=[10, 25], seed=range(3))  # doctest: +SKIP
        >>> swept.chart("fid")  # doctest: +SKIP
    """

    folder: Path
    failures: tuple[Failure, ...] = ()
    """The cells that failed: ``folder``, ``message``."""

    @cached_property
    def runs(self) -> "Sequence[RunResult]":
        """The cells in their order; ``status`` is ``missing`` of one that has not begun."""
        from diffexp.experiment.result import RunResult

        return [RunResult.read(cell.folder) for cell in read_cells(self.folder)]

    @property
    def table(self) -> "Runs":
        """A row a cell, a ``pandas.DataFrame``; see ``diffexp.load``."""
        from diffexp.report.runs import load

        return load(self.folder)

    @property
    def report(self) -> Path | None:
        """The page that compares the cells; None where there is none."""
        file = self.folder / NAME
        return file if file.is_file() else None

    def best(self, metric: str, *, max_cost: float | None = None, cost: str = "forward_passes") -> "pd.Series":
        """The row of the table, over seeds, with the best value of a metric; see ``Runs.best``.

        Raises:
            InputError: no such metric, or no finished cell has a value.
        """
        return self.table.over_seeds().best(metric, max_cost=max_cost, cost=cost)

    def chart(self, metric: str, *, x: str = "forward_passes", by: "str | Sequence[str]" = "scheduler") -> "Drawing":
        """A chart of a metric, the mean over seeds; see ``Runs.chart``."""
        return self.table.chart(metric, x=x, by=by)

    def __repr__(self) -> str:
        return f"<SweepResult of {self._ended()}, {self.folder}>"

    def _repr_html_(self) -> str:
        """The sweep in a notebook: the table of its finished cells, and the failures."""
        from diffexp.report.collect import collect
        from diffexp.report.content import Report
        from diffexp.report.result_table import ResultTable
        from diffexp.report.tables import html

        known = bool(read_cells(self.folder))
        table = ResultTable(Report(collect([self.folder]), self.folder.absolute() / NAME)) if known else None
        failed = Markup('<div style="color:#c22f4a">{}: {}</div>')
        parts = [
            Markup("<div><b>{}</b> · <code>{}</code></div>").format(self._ended(), self.report or self.folder),
            html(table) if table and table.rows else "",
            *(failed.format(Path(failure.folder).name, failure.message) for failure in self.failures[:MAX_FAILURES]),
        ]
        return str(Markup('<div class="diffexp">{}</div>').format(Markup("").join(parts)))

    def _ended(self) -> str:
        """``4 cells (3 done, 1 failed)``."""
        counts = Counter(run.status for run in self.runs)
        ended = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none has begun"
        return f"{counts.total()} cells ({ended})"
