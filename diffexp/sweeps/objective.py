"""What a search wants to make small or large."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffexp.experiment.summary import metrics_line
from diffexp.files import read_json
from diffexp.sweeps.results import Cell


def objective_value(config: Mapping[str, Any], folder: Path) -> float | None:
    """The metric that ``objective`` names, of the run in ``folder``.

    None where the run has failed or has no such metric, and where no objective is named.
    """
    name = config.get("objective")
    return read_json(folder / "metrics.json").get(name) if name else None


def best_cell(cells: Sequence[Cell], objective: str, direction: str = "minimize") -> Cell | None:
    """The finished cell with the best value, the first of equal ones; None where no cell has one.

    Args:
        objective: a metric, as in ``metrics.json``.
        direction: ``minimize`` or ``maximize``.
    """
    sign = -1 if direction == "maximize" else 1
    known = [cell for cell in cells if cell.status == "done" and cell.metrics.get(objective) is not None]
    return min(known, key=lambda cell: sign * cell.metrics[objective], default=None)


def best_text(cells: Sequence[Cell], objective: str, direction: str = "minimize") -> str:
    """The best cell in a few lines: its folder, its metrics and the command that runs it again."""
    best = best_cell(cells, objective, direction)
    if best is None:
        there = ", ".join(dict.fromkeys(name for cell in cells for name in cell.metrics)) or "none"
        return f"no cell has objective={objective} (metrics there: {there})"
    # An experiment may make any command a sweep.
    command = shlex.join(["python", "-m", "diffexp", *best.overrides, "hydra.mode=RUN"])
    return f"best {objective}: {best.folder.name}  {metrics_line(best.metrics)}\n  again: {command}"
