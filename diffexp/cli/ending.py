"""The end of a sweep: its tables and its page are written, and the best cells shown."""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from diffexp.catalog.discover import Catalog
from diffexp.catalog.kinds import KINDS
from diffexp.cli.latest import OUTPUTS, link_latest
from diffexp.errors import InputError, one_line
from diffexp.experiment.lock import FolderInUse
from diffexp.experiment.progress import is_notebook
from diffexp.report import report_sweep
from diffexp.report.over_seeds import NAME as OVER_SEEDS, write_over_seeds
from diffexp.sweeps.console import show
from diffexp.sweeps.outcome import outcome_table
from diffexp.sweeps.record import NAME as SWEEP, SweepRecord
from diffexp.sweeps.results import LATEST, CellResult, read_cells, write_results

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


def has_begun(folder: Path) -> bool:
    """Whether the run of a folder, or some cell of the sweep in it, has begun."""
    return any(any(folder.glob(pattern)) for pattern in ("run.json", "*/run.json"))


@contextmanager
def withdrawn_if_refused(folder: Path) -> Iterator[None]:
    """Remove the folder of a run or sweep that the block has made, if it is refused before anything has begun.

    Raises:
        InputError: that of the block; where the folder was there before, it says how to go on in it.
    """
    link, existed = Path(OUTPUTS, LATEST).absolute(), folder.exists()
    latest = link.resolve() if link.exists() else None
    try:
        yield
    except FolderInUse:
        raise
    except InputError as error:
        if existed:
            if (folder / SWEEP).is_file() and not has_begun(folder):
                advice = f"nothing has begun; go on with other options: python -m diffexp resume={folder}"
                raise InputError(f"{error}; {advice} hydra.launcher...=...") from error
            raise
        if not has_begun(folder):
            shutil.rmtree(folder, ignore_errors=True)
            if latest:
                link_latest(latest)
            elif link.is_symlink() and not link.exists():
                link.unlink()
        raise


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
