"""What a search wants to make small or large."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffexp.files import read_json


def objective_value(config: Mapping[str, Any], folder: Path) -> float | None:
    """The metric that ``objective`` names, of the run in ``folder``.

    None where the run has failed or has no such metric, and where no objective is named.
    """
    name = config.get("objective")
    return read_json(folder / "metrics.json").get(name) if name else None
