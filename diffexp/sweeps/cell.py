"""A cell of a sweep before it runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IN_THE_NAME = ("model", "scheduler", "steps", "max_nfe")


@dataclass(frozen=True)
class Job:
    """One cell."""

    number: int
    config: dict[str, Any]
    """What ``run_experiment`` takes."""
    folder: Path
    overrides: tuple[str, ...] = ()
    """The words of the command line that make this cell."""


def swept_words(jobs: Sequence[Job]) -> dict[int, str]:
    """By number of the cell, what tells it from the others and is not in the name of its folder."""
    words = {job.number: [w for w in job.overrides if w.partition("=")[0] not in IN_THE_NAME] for job in jobs}
    common = set.intersection(*map(set, words.values())) if words else set()
    return {number: " ".join(word for word in some if word not in common) for number, some in words.items()}
