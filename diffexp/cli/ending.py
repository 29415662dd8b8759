"""The end of a sweep: its tables and its page are written, and the best cells shown."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffexp.catalog.discover import Catalog
from diffexp.catalog.kinds import KINDS
from diffexp.errors import one_line
from diffexp.experiment.progress import is_notebook
from diffexp.report import report_sweep
from diffexp.report.over_seeds import NAME as OVER_SEEDS, write_over_seeds
from diffexp.sweeps.console import show
from diffexp.sweeps.outcome import outcome_table
from diffexp.sweeps.record import SweepRecord
from diffexp.sweeps.results import CellResult, read_cells, write_results

if TYPE_CHECKING:
    from diffexp.report.content import Report

log = logging.getLogger(__name__)


def end_sweep(folder: Path, record: SweepRecord, catalog: Catalog, objective: str | None) -> None:
    """Write the tables and the page of a sweep that has ended, and print what is best and what is missing.

    Args:
        objective: the metric to rank by, if one was given.
    """
    cells: Sequence[CellResult] = ()
    try:
        cells = read_cells(folder)
        write_results(folder, cells)
        write_over_seeds(cells, folder / OVER_SEEDS)
    except OSError as error:  # a full disk; the failures are still to be printed
        log.warning("no table of results: %s", error.strerror)
    report_sweep(folder, catalog, lambda report: _show_ranking(report, objective))
    show(lambda width: outcome_table(folder, record))
    for command in sync_commands(folder, cells, catalog):
        log.info("upload the runs of all cells with: %s", command)


def _show_ranking(report: "Report", objective: str | None) -> None:
    from diffexp.report.ranking import Ranking, ranked_table

    if is_notebook():  # which shows the same as the result
        return
    ranking = Ranking(report, objective)
    show(lambda width: ranked_table(ranking, width))


def sync_commands(sweep: Path, cells: Sequence[CellResult], catalog: Catalog) -> Iterator[str]:
    """What uploads the runs of all cells that a tracker has stored locally, for each tracker that has such runs.

    A tracker may have a static method ``sync_command(sweep: Path) -> str | None``.
    """
    configs = [cell.record.get("config") for cell in cells]
    trackers = [config["tracker"] for config in configs if isinstance(config, Mapping) and config.get("tracker")]
    names = dict.fromkeys(str(node.get("name")) for chosen in trackers for node in KINDS["tracker"].nodes(chosen))
    for name in names:
        try:
            entry = catalog.find("tracker", name)
            command = getattr(entry.load(), "sync_command", None) if entry else None
            if command and (line := command(sweep)):
                yield str(line)
        except Exception as error:  # a tracker costs itself alone
            log.debug("no command for uploads of %s: %s", name, one_line(error))
