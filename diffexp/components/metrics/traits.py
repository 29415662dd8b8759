"""What metrics declare of their values: the direction, the range, and how many samples they take."""

from __future__ import annotations

import math
from collections.abc import Mapping

from diffexp.catalog.discover import Catalog, discover


def higher_is_better() -> frozenset[str]:
    """The metrics that ``@metric(higher_is_better=...)`` lists, by the part of their names before a slash."""
    named = (entry.traits.get("higher_is_better", ()) for entry in discover().of_kind("metric").values())
    return frozenset(name for names in named for name in names)


def ranges() -> Mapping[str, tuple[float, float]]:
    """Smallest and largest values, as ``@metric(ranges={"fid": (0, None)})`` declares them; None stands for no end."""
    found: dict[str, tuple[float, float]] = {}
    for entry in discover().of_kind("metric").values():
        for name, (low, high) in entry.traits.get("ranges", {}).items():
            found[name] = (-math.inf if low is None else low, math.inf if high is None else high)
    return found


def needed(catalog: Catalog | None = None) -> Mapping[str, int]:
    """The smallest numbers of samples of which values are ranked, as ``@metric(needed={"fid": 64})`` declares them.

    By the part of a name before a slash; a whole name, ``fid/inception_v3``, is an exception to it.

    Args:
        catalog: everything that can be chosen; None: as it is now, which takes a search of all folders.
    """
    found: dict[str, int] = {}
    for entry in (catalog or discover()).of_kind("metric").values():
        found |= entry.traits.get("needed", {})
    return found


def needed_by(name: str, known: Mapping[str, int]) -> int:
    """The samples that a value takes to be ranked; 0 where its metric declares nothing.

    Args:
        name: as in ``metrics.json``; the real images in it, ``@digits``, make no difference.
        known: those of ``needed``.
    """
    name = name.partition("@")[0]
    return known.get(name, known.get(name.partition("/")[0], 0))
