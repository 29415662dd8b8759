"""The conditions of cells: what must be equal for their metrics to be ranked against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffexp.sweeps.results import CellResult

CONDITION_KEYS = (
    "model",
    "prompt",
    "negative_prompt",
    "label",
    "num_samples",
    "pipe",
    "loop.image",
    "loop.mask",
    "loop.source",
    "loop.control_image",
)
"""Config keys that state what is sampled, from which inputs and how often, rather than how."""


@dataclass(frozen=True)
class Conditions:
    """The different conditions of some cells."""

    of_cell: tuple[int, ...]
    """For each cell the number of its condition."""
    values: tuple[Mapping[str, Any], ...]
    """For each condition the config keys in which not all conditions agree; flat."""

    def differing(self, key: str) -> list[Any]:
        """The different values of a config key, or of the keys below it; empty where all agree."""
        found = [value for values in self.values for own, value in values.items() if _below(own, key)]
        return [value for i, value in enumerate(found) if value not in found[:i]]


def conditions(cells: Sequence[CellResult]) -> Conditions:
    """Group cells by their conditions; a cell without config is of the first."""
    found: dict[str, dict[str, Any]] = {}
    of_cell = []
    for cell in cells:
        values = {key: value for key, value in cell.config.items() if any(_below(key, own) for own in CONDITION_KEYS)}
        name = repr(sorted(values.items(), key=lambda item: item[0])) if values else next(iter(found), "")
        found.setdefault(name, values)
        of_cell.append(list(found).index(name))
    known = list(found.values())
    keys = dict.fromkeys(key for values in known for key in values)
    differing = [key for key in keys if any(values.get(key) != known[0].get(key) for values in known)]
    return Conditions(tuple(of_cell), tuple({key: values.get(key) for key in differing} for values in known))


def _below(key: str, parent: str) -> bool:
    return key == parent or key.startswith(f"{parent}.")
