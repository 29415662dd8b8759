"""A cell of a sweep before it runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IN_THE_NAME = ("model", "scheduler", "steps", "max_nfe", "max_forward_passes")
"""Keys whose values are part of the name of a cell's folder."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep, to be run."""

    number: int
    config: dict[str, Any]
    """The config that ``run_experiment`` takes."""
    folder: Path
    overrides: tuple[str, ...] = ()
    """The words of the command line that make this cell."""


def distinguishing_words(cells: Sequence[Cell]) -> dict[int, str]:
    """Return by number of the cell the overrides that are not common to all cells and not in the name of its folder."""
    words = {cell.number: [w for w in cell.overrides if w.partition("=")[0] not in IN_THE_NAME] for cell in cells}
    common = set.intersection(*map(set, words.values())) if words else set()
    return {number: " ".join(word for word in some if word not in common) for number, some in words.items()}


def model_key(config: Mapping[str, Any]) -> str:
    """A text that is equal for cells that load the same model."""
    return json.dumps([config[key] for key in ("model", "device", "dtype", "compile")], default=str)


def amount_of_work(config: Mapping[str, Any]) -> float:
    """An estimate of a cell's model evaluations."""
    limits = (config.get(key) for key in ("steps", "max_nfe", "max_forward_passes"))
    return float(min(most for most in limits if most is not None) * config["num_samples"])


def batches_of(config: Mapping[str, Any]) -> int:
    """The number of batches of a cell, which as many workers can draw at the same time."""
    return -(-int(config["num_samples"]) // int(config["batch_size"]))
