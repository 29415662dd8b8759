"""The objective of a search: a metric to minimise or maximise."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffexp.experiment.rounds import HARDLY, WORSE, Round, samples_of
from diffexp.experiment.summary import lacking, metrics_line, read_metrics
from diffexp.sweeps.replicates import merge_replicates
from diffexp.sweeps.results import CellResult


def objective_value(config: Mapping[str, Any], folder: Path) -> float | None:
    """The value of the config's ``objective`` for the run in ``folder``.

    None if the run has failed or has no such metric, or if there is no objective. Of a run that left the race of a
    search before it had all samples, what it would be with these; see ``race_search.comparable_value``.
    """
    name = config.get("objective")
    found = read_metrics(folder).get(name) if name else None
    if found is None or config.get("stop") is None:
        return found
    from diffexp.sweeps.race_search import comparable_value  # imports torch

    metric, value = comparable_value(folder) or (name, found)
    return value if metric == name else found


def best_cell(cells: Sequence[CellResult], objective: str, direction: str = "minimize") -> CellResult | None:
    """The finished cell with the best value, the first of equal ones; None if no cell has a value.

    Cells that left a race because of another are none of them.

    Args:
        objective: a metric, as in ``metrics.json``.
        direction: ``minimize`` or ``maximize``.
    """
    sign = -1 if direction == "maximize" else 1
    known = [cell for cell in cells if cell.status == "done" and cell.metrics.get(objective) is not None]
    known = [cell for cell in known if not _left_behind(cell)] or known
    return min(known, key=lambda cell: sign * cell.metrics[objective], default=None)


def _left_behind(cell: CellResult) -> bool:
    now = Round.of(cell.record)
    return now is not None and now.why.startswith((WORSE, HARDLY))


def best_text(cells: Sequence[CellResult], objective: str, direction: str = "minimize") -> str:
    """Describe the best cell in two lines: its folder and metrics, and the command that runs it again."""
    best = best_cell(merge_replicates(cells), objective, direction)
    if best is None:
        available = ", ".join(dict.fromkeys(name for cell in cells for name in cell.metrics)) or "none"
        return f"no cell has objective={objective} (available metrics: {available})"
    shown = {**best.metrics, **lacking(best.metrics, samples_of(best.record))}
    # An experiment may make any command a sweep.
    command = shlex.join(["python", "-m", "diffexp", *best.overrides, "hydra.mode=RUN"])
    seeds = f"  (means over {len(best.members)} seeds)" if len(best.members) > 1 else ""
    return f"best {objective}: {best.folder.name}  {metrics_line(shown)}{seeds}\n  again: {command}"
