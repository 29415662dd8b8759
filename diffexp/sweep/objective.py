"""What a search wants to make small or large."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffexp.files import read_json


def objective_value(config: Mapping[str, Any], folder: Path) -> float | None:
    """The metric that ``objective`` names, of the run in ``folder``.

    Not a number where the run has failed or has no such metric; None where no objective is named.
    """
    name = config.get("objective")
    if name is None:
        return None
    value = read_json(folder / "metrics.json").get(name)
    return math.nan if value is None else float(value)
