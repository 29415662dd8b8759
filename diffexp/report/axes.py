"""The axes of a sweep, found in the configs of its cells, and the place of every cell on them."""

import json
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from diffexp.experiment.configs import differing_keys
from diffexp.sweeps.replicates import IRRELEVANT_KEYS
from diffexp.sweeps.results import CellResult

GROUPS = ("model", "scheduler", "grid", "loop", "guidance")
"""Config groups; the chosen option is ``<group>.name`` in the config."""
ABSENT = "–"
"""Shown for a cell without such a key, for example an option of another scheduler."""
BARE = (*GROUPS, "run", "sweep")
"""Axes whose values are shown without the name of the axis."""
PHRASES = {"steps": "{} steps", "max_nfe": "≤ {} NFE", "max_forward_passes": "≤ {} forward passes"}
"""Axes that limit the cost of a cell, with the phrase for one of their values."""


@dataclass(frozen=True)
class Axis:
    """A config key that was varied."""

    name: str
    """As on the command line: ``scheduler``, ``steps``, ``scheduler.eta``."""
    values: tuple[str, ...]
    """As shown, in order."""

    def phrase(self, value: int) -> str:
        """A value as part of a label."""
        text = self.values[value]
        if self.name in BARE:
            return text
        form = PHRASES.get(self.name) if text.isdecimal() else None
        return form.format(text) if form else f"{self.name.rpartition('.')[2]} {text}"


@dataclass(frozen=True)
class Placement:
    """The place of every cell on the axes of a sweep; no two cells are in the same place."""

    axes: tuple[Axis, ...]
    places: tuple[tuple[int, ...], ...]
    """For each cell the number of its value on each axis."""

    def label(self, cell: int) -> str:
        """The label of a cell: ``ddim · 10 steps``."""
        return " · ".join(axis.phrase(value) for axis, value in zip(self.axes, self.places[cell]))


def place_cells(cells: Sequence[CellResult]) -> Placement:
    """Find the axes, which are the config keys with more than one value, and the place of every cell on them.

    An option of a group (``scheduler.order``) is an axis only if it was varied within one choice of that group. Of keys
    that always change together only the first is an axis. Cells in the same place are distinguished by the name of
    their parent folder, as the axis ``sweep``, or of their own, as ``run``.
    """
    configs = [cell.config for cell in cells]
    known = [config for config in configs if config]
    names: list[str] = []
    columns: list[list[str]] = []
    for key in sorted(differing_keys(known) if known else [], key=_rank):
        group, _, option = key.partition(".")
        choice = group in GROUPS and option in ("name", "_target_")
        name = group if choice else key
        if (
            group in IRRELEVANT_KEYS
            or name in names
            or (group in GROUPS and not choice and not _varied_within(key, known))
        ):
            continue
        column = [option_of(config, group) if choice else _shown(config, key) for config in configs]
        if len(set(column)) > 1 and not any(_same_partition(column, other) for other in columns):
            names.append(name)
            columns.append(column)
    for name, column in (
        ("sweep", [cell.folder.parent.name for cell in cells]),
        ("run", [cell.folder.name for cell in cells]),
        ("run", [str(cell.folder) for cell in cells]),
    ):
        if len(set(zip(*columns)) if columns else {()}) == len(cells):
            break
        if len(set(column)) > 1:
            names, columns = [*names, name], [*columns, column]
    axes = tuple(Axis(name, _ordered(column)) for name, column in zip(names, columns))
    places = tuple(tuple(axis.values.index(c[row]) for axis, c in zip(axes, columns)) for row in range(len(cells)))
    return Placement(axes, places)


def as_text(value: Any) -> str:
    """A config value as people write it on the command line."""
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def option_of(config: Mapping[str, Any], group: str) -> str:
    """The chosen option of a group: its name, or that of the class given by ``_target_``."""
    target = config.get(f"{group}._target_")
    return str(target).rpartition(".")[2] if target else str(config.get(f"{group}.name", ABSENT))


def _shown(config: Mapping[str, Any], key: str) -> str:
    return as_text(config[key]) if key in config else ABSENT


def _rank(key: str) -> int:
    """Sort key of config keys: groups in their order, then limits of the cost, then the rest."""
    order = (*GROUPS, *PHRASES)
    group = key.partition(".")[0]
    return order.index(group) if group in order else len(order)


def _varied_within(key: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    group, values_by_option = key.partition(".")[0], dict[str, set[str]]()
    for config in configs:
        if key in config:
            values_by_option.setdefault(option_of(config, group), set()).add(as_text(config[key]))
    return any(len(values) > 1 for values in values_by_option.values())


def _same_partition(first: Sequence[Hashable], second: Sequence[Hashable]) -> bool:
    pairs = set(zip(first, second))
    return len(pairs) == len(set(first)) == len(set(second))


def _ordered(column: Sequence[str]) -> tuple[str, ...]:
    """The different values: numbers by size, words in order of appearance, ABSENT last."""
    values = [text for text in dict.fromkeys(column) if text != ABSENT]
    with suppress(ValueError):
        values.sort(key=float)
    return tuple([*values, ABSENT] if ABSENT in column else values)
