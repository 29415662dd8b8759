"""``race.json``: what the race of a sweep with ``stop=decided`` has decided so far, and the values that it compares.

``race.json``               the metric, the racers with their samples and why they left, p-values of pairs
``.race/000048.safetensors``   at the look at 48 samples the value of every cell, and its values on halves of them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from diffexp.files import read_json_or_none, replace_whole, write_json
from diffexp.sweeps.sequential import LEVEL, adjusted

NAME = "race.json"
FOLDER = ".race"


@dataclass
class Racer:
    """Cells that differ in nothing but the seed; they leave the race together."""

    cells: Sequence[int]
    """Their numbers."""
    folders: Sequence[str]
    """The names of their folders."""
    most: int
    """``num_samples`` of each."""
    group: int = 0
    """Racers of the same group race against each other."""
    samples: int = 0
    """Of each cell, at the last look."""
    why: str = ""
    """Why it left; empty as long as it races."""
    beaten_by: str = ""
    """The folder of the racer that is significantly better, where it left for that."""


@dataclass
class RaceRecord:
    """The race of a sweep so far."""

    racers: list[Racer]
    metric: str = ""
    """That decides; empty before the first look."""
    higher: bool = False
    """Whether larger values are better."""
    looks: int = 0
    """How many looks there were."""
    open: bool = False
    """Whether more cells may join, so that the best one draws all samples."""
    tests: int = 0
    """The number of pairs of racers in a common group."""
    p_values: dict[str, float] = field(default_factory=dict)
    """By pair of racers, ``3-7``: the p-value over all looks so far, not adjusted for the number of pairs."""
    decided: dict[str, int] = field(default_factory=dict)
    """The pairs of racers that differ significantly, and the number of samples at which that was found."""

    def write(self, sweep: Path) -> None:
        """Write the file into the folder of a sweep."""
        write_json(sweep / NAME, asdict(self))

    @property
    def adjusted(self) -> dict[tuple[int, int], float]:
        """The p-values of pairs of racers, adjusted for all pairs and all looks."""
        return adjusted({pair_of(text): p for text, p in self.p_values.items()}, self.tests)

    def racer_of(self, folder: str) -> int | None:
        """The racer that the cell with this folder belongs to."""
        return next((number for number, racer in enumerate(self.racers) if folder in racer.folders), None)


def read_race(sweep: Path) -> RaceRecord | None:
    """The race of the sweep in a folder; None where it has none, or it is damaged."""
    found: Any = read_json_or_none(sweep / NAME)
    try:
        return RaceRecord(**{**found, "racers": [Racer(**one) for one in found["racers"]]}) if found else None
    except (TypeError, KeyError):
        return None


def pair_text(first: int, second: int) -> str:
    """The key of a pair of racers."""
    return f"{min(first, second)}-{max(first, second)}"


def pair_of(text: str) -> tuple[int, int]:
    """The pair of racers with a key."""
    first, _, second = text.partition("-")
    return int(first), int(second)


def is_decided(p: float) -> bool:
    """Whether an adjusted p-value decides a pair."""
    return p < LEVEL


@dataclass(frozen=True)
class Look:
    """The values of cells at a number of samples."""

    values: Mapping[str, float]
    """By the name of a cell's folder."""
    halves: Mapping[str, Tensor]
    """(2, B) float64; see ``components.metrics.half_samples``."""

    def write(self, sweep: Path, samples: int) -> None:
        """Write it into the folder of a sweep."""
        tensors = {f"halves {name}": own.float().contiguous() for name, own in self.halves.items()}
        numbers = {f"value {name}": torch.tensor([own], dtype=torch.float64) for name, own in self.values.items()}
        (sweep / FOLDER).mkdir(exist_ok=True)
        with replace_whole(_file(sweep, samples)) as temporary:
            temporary.write_bytes(save(tensors | numbers))


def read_look(sweep: Path, samples: int) -> Look | None:
    """The look at so many samples; None where there was none."""
    try:
        found = load_file(_file(sweep, samples))
    except (OSError, SafetensorError):
        return None
    values = {key.removeprefix("value "): own.item() for key, own in found.items() if key.startswith("value ")}
    halves = {key.removeprefix("halves "): own.double() for key, own in found.items() if key.startswith("halves ")}
    return Look(values, halves)


def _file(sweep: Path, samples: int) -> Path:
    return sweep / FOLDER / f"{samples:06d}.safetensors"
