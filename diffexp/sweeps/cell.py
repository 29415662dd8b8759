"""A cell of a sweep before it runs."""

import copy
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from diffexp.experiment.rounds import Round

IN_THE_NAME = ("model", "scheduler", "steps", "max_nfe", "max_forward_passes")
"""Keys whose values are part of the name of a cell's folder."""
MOST_OF_A_VALUE, MOST_OF_A_NAME = 24, 140
"""Characters of a value, and bytes of all of them together, in the name of a folder."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep, to be run."""

    number: int
    config: dict[str, Any]
    """The config that ``run_experiment`` takes."""
    folder: Path
    overrides: tuple[str, ...] = ()
    """The words of the command line that make this cell."""
    round: Round | None = None
    """How far it is drawn now; None: to its end."""

    @property
    def samples(self) -> int:
        """The number of samples that the cell has once it is run."""
        return self.round.samples if self.round else int(self.config["num_samples"])

    def in_round(self, now: Round) -> Self:
        """The cell as it is run in a round."""
        found = copy.copy(self)  # with what its class has added
        object.__setattr__(found, "round", now)
        return found


def name_part(key: str, value: Any) -> str:
    """A key and its value as a part of a folder's name: ``seed1``, ``eta0.5``, ``grid-karras``, ``prompt-a-red-fox``.

    Args:
        key: the last parts of a dotted key that distinguish it from others.
        value: what is no letter, digit or one of ``_.+-`` in it is replaced, and the end of a long one left out.
    """
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    plain = re.sub(r"[^\w.+-]+", "-", text).strip("-.") if isinstance(value, str | list | dict) else text
    plain = plain[:MOST_OF_A_VALUE].rstrip("-.")
    return f"{key}{plain}" if re.match(r"-?\d", plain) else f"{key}-{plain}"


def short_keys(keys: Collection[str]) -> dict[str, str]:
    """The last part of each dotted key; the whole key where several have the same last part."""
    last = {key: key.rpartition(".")[2] for key in keys}
    ends = [*last.values()]
    return {key: end if ends.count(end) == 1 else key for key, end in last.items()}


def distinguishing_words(cells: Sequence[Cell]) -> dict[int, str]:
    """Return by number of the cell the overrides that are not common to all cells and not in the name of its folder."""
    words = {cell.number: [w for w in cell.overrides if not _is_named(w, cell.folder)] for cell in cells}
    common = set.intersection(*({*cell.overrides} for cell in cells)) if cells else set()
    return {number: " ".join(word for word in some if word not in common) for number, some in words.items()}


def _is_named(word: str, folder: Path) -> bool:
    """Whether the name of a folder shows the whole value of a word."""
    key, _, value = word.lstrip("+").partition("=")
    value = value.strip("'\"")
    shown = [f"_{name_part(name, value)}_" for name in (key, key.rpartition(".")[2])]
    whole = len(value) <= MOST_OF_A_VALUE
    return key in IN_THE_NAME or (whole and any(part in f"_{folder.name}_" for part in shown))


def model_key(config: Mapping[str, Any]) -> str:
    """A text that is equal for cells that load the same model."""
    return json.dumps([config[key] for key in ("model", "device", "dtype", "compile")], default=str)


def amount_of_work(cell: Cell) -> float:
    """An estimate of a cell's model evaluations."""
    limits = (cell.config.get(key) for key in ("steps", "max_nfe", "max_forward_passes"))
    return float(min(most for most in limits if most is not None) * cell.samples)


def batches_of(samples: int, config: Mapping[str, Any]) -> int:
    """The number of batches of so many samples of a run, which as many workers can draw at the same time."""
    return -(-samples // int(config["batch_size"]))
