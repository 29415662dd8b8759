"""How cells have ended, in words."""

from diffexp.experiment.summary import metrics_line, read_metrics
from diffexp.sweeps.cell import Cell


def end_line(cell: Cell, words: str, status: str, message: str | None) -> str:
    """Describe the end of a cell: its folder, the words that tell it from the others, its status, its metrics.

    Args:
        message: why it failed, instead of metrics.
    """
    result = metrics_line(read_metrics(cell.folder)) if message is None else message
    name = " ".join(part for part in (cell.folder.name, words) if part)
    return f"{name}: {status}" + (result and f"  {result}")
