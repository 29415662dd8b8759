"""The conditions of cells: what must be equal for their metrics to be ranked against each other.

Each top-level key and kind of plugin declares whether it is part of them (``condition`` in ``catalog.keys`` and
``catalog.kinds``), and a plugin which of its options are: ``@loop(inputs=["image"])``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffexp.catalog.discover import Catalog, discover
from diffexp.catalog.keys import KEYS
from diffexp.catalog.kinds import KINDS
from diffexp.sweeps.results import CellResult


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
    declared = _Declared(discover())
    for cell in cells:
        own = declared.keys(cell.config)
        values = {key: value for key, value in cell.config.items() if any(_below(key, parent) for parent in own)}
        name = repr(sorted(values.items(), key=lambda item: item[0])) if values else next(iter(found), "")
        found.setdefault(name, values)
        of_cell.append(list(found).index(name))
    known = list(found.values())
    keys = dict.fromkeys(key for values in known for key in values)
    differing = [key for key in keys if any(values.get(key) != known[0].get(key) for values in known)]
    return Conditions(tuple(of_cell), tuple({key: values.get(key) for key in differing} for values in known))


class _Declared:
    """The keys that state what is sampled, from which inputs and how often, rather than how."""

    def __init__(self, catalog: Catalog) -> None:
        self._always = [key.name for key in KEYS if key.condition]
        self._always += [kind.name for kind in KINDS.values() if kind.condition]
        self._inputs = {own: found for own, entry in catalog.entries.items() if (found := entry.traits.get("inputs"))}

    def keys(self, config: Mapping[str, Any]) -> list[str]:
        """Those of a flat config."""
        chosen = ((kind, str(config.get(f"{kind}.name"))) for kind in KINDS)
        return [*self._always, *(f"{own[0]}.{key}" for own in chosen for key in self._inputs.get(own, ()))]


def _below(key: str, parent: str) -> bool:
    return key == parent or key.startswith(f"{parent}.")
