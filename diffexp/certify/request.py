"""Schedulers to certify, as read from a command line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """One scheduler with its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.name + "".join(f" {key}={value}" for key, value in self.options.items())


@dataclass(frozen=True)
class Request:
    """A command line: which schedulers, and where their certificates are written."""

    jobs: tuple[Job, ...]
    out: Path
    everything: bool
