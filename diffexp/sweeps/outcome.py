"""How cells and sweeps have ended, in words."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffexp.catalog.discover import Catalog
from diffexp.experiment.lock import Watch
from diffexp.experiment.rounds import samples_of
from diffexp.experiment.summary import brief_line, lacking, read_metrics
from diffexp.files import read_json
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.claims import FILE as CLAIM, read_claim
from diffexp.sweeps.record import SweepRecord
from diffexp.sweeps.results import cell_number

if TYPE_CHECKING:
    from rich.console import RenderableType

STATUSES = {
    "done": "green",
    "failed": "bold red",
    "lost": "bold red",
    "interrupted": "yellow",
    "running": "cyan",
    "not begun": "dim",
}
"""How cells are, with the style of the word."""
MOST_NAMES = 4
"""Names of cells in a line."""


def end_line(cell: Cell, words: str, status: str, message: str | None, catalog: Catalog | None = None) -> str:
    """Describe the end of a cell: its folder, the words that tell it from the others, its status, its main metrics.

    Args:
        message: why it failed, instead of metrics.
        catalog: everything that can be chosen; None: as it is now.
    """
    result = _metrics(cell.folder, catalog) if message is None else message
    name = " ".join(part for part in (cell.folder.name, words) if part)
    return f"{name}: {status}" + (result and f"  {result}")


def _metrics(folder: Path, catalog: Catalog | None) -> str:
    metrics = read_metrics(folder)
    return brief_line(metrics | lacking(metrics, samples_of(read_json(folder / "run.json")), catalog))


def stopping_text(running: int, noun: str, resume: str) -> str:
    """What happens after a Ctrl-C.

    Args:
        running: how many there are of ``noun``: cells or workers.
        resume: the word that continues what is stopped, if there is one.
    """
    who = f"1 {noun} writes what it has" if running == 1 else f"{running} {noun}s write what they have"
    return f"stopping: {who} finished" + (f"; go on later with: python -m diffexp {resume}" if resume else "")


def names_of(folders: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(folders) - MOST_NAMES} more" if len(folders) > MOST_NAMES else ""
    return ", ".join(folders[:MOST_NAMES]) + more


def outcome_table(sweep: Path, record: SweepRecord) -> "RenderableType | None":
    """What is done of a sweep, what failed, was lost or interrupted, and the command that finishes it.

    A cell is lost where its worker died and nobody went on with it. None if all cells are done.
    """
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    found: dict[str, list[str]] = {status: [] for status in STATUSES}
    watch = Watch()
    begun = {
        *(file.parent for file in sweep.glob("*/run.json")),
        *(file.parents[1] for file in sweep.glob(f"*/{CLAIM}")),
    }
    for folder in sorted(begun, key=cell_number):
        found[_status(folder, watch)].append(folder.name)
    counts = {status: len(names) for status, names in found.items()}
    counts["not begun"] = max(0, len(record.cells or ()) - sum(counts.values()))
    if counts["done"] == sum(counts.values()):
        return None
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=max(map(len, STATUSES)))
    table.add_column(min_width=3, justify="right")
    table.add_column(overflow="fold")
    for status, style in STATUSES.items():
        if counts[status]:
            names = "" if status == "done" else names_of(found[status])
            table.add_row(Text(status, style=style), str(counts[status]), Text(names))
    lines = [f"{sum(counts.values())} cells in {sweep}", f"  finish the sweep with: python -m diffexp resume={sweep}"]
    title, finish = (Text(line, no_wrap=True, overflow="ignore") for line in lines)  # to be copied
    rows = Padding(table, (0, 0, 0, 2), expand=False)
    return Group(title, rows, finish) if record.cells else Group(title, rows)


def _status(folder: Path, watch: Watch) -> str:
    status = read_json(folder / "run.json").get("status")
    if status in ("done", "failed"):
        return status
    if status != "interrupted" and watch.is_held(folder):
        return "running"
    return "lost" if read_claim(folder) else "interrupted"
