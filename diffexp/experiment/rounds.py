"""Rounds of a run: with ``stop=decided`` a cell of a sweep draws its samples in several, and is measured after each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

WAITING = "waiting"
"""The status of a run between two rounds."""
KEY = "race"
"""The entry of ``run.json``."""
WORSE, HARDLY = "worse than", "hardly to be told from"
"""How the reason begins why a run that lost ends, or one that will hardly be decided."""


@dataclass(frozen=True)
class Round:
    """How far a run is drawn, and whether it then ends."""

    samples: int
    """The samples that there are to be at its end, those of earlier rounds included."""
    final: bool
    """Whether the run ends with it; before that it has neither trackers nor all of its metrics."""
    metrics: Sequence[str] = ()
    """The choices of ``metric`` that are computed in a round that is not final; empty: all."""
    why: str = ""
    """Why the run ends with so many samples, as in "undecided at 500 samples"."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self | None:
        """The round of the run with this ``run.json``; None where it draws all samples at once."""
        found = record.get(KEY)
        return cls(**found) if isinstance(found, Mapping) and found.keys() == cls.__dataclass_fields__.keys() else None

    @property
    def entry(self) -> dict[str, Any]:
        """The entry of ``run.json``; see ``of``."""
        return {KEY: asdict(self)}


def samples_of(record: Mapping[str, Any]) -> int:
    """The number of samples that the run with this ``run.json`` is to have; 0 where it says none."""
    own = Round.of(record)
    found = own.samples if own else (record.get("config") or {}).get("num_samples")
    return found if isinstance(found, int) else 0
