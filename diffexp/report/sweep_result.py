"""What Python gets of a sweep: its runs, its table, the best of them, its page."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from diffexp.report import NAME
from diffexp.sweeps.failures import Failure
from diffexp.sweeps.results import read_cells

if TYPE_CHECKING:
    import pandas as pd

    from diffexp.experiment.result import RunResult
    from diffexp.report.runs import Runs


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

    def __repr__(self) -> str:
        runs = self.runs
        counts: dict[str, int] = {}
        for run in runs:
            counts[run.status] = counts.get(run.status, 0) + 1
        ended = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"<SweepResult of {len(runs)} cells ({ended or 'none has begun'}), {self.folder}>"
