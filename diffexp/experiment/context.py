"""Where a run takes place: alone in its process, or among the other cells of a batched sweep."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from diffexp.components.models.base import Model


class Bar(Protocol):
    """What of tqdm a run uses to show how far it is; ``n`` of ``total`` are done."""

    n: float
    total: float | None

    def update(self, n: int = 1) -> object: ...

    def refresh(self) -> object: ...

    def close(self) -> object: ...


class RunContext:
    """A run that has its process to itself; a subclass may share what several runs need."""

    def model(self, load: Callable[[], Model]) -> Model:
        """The run's model; ``load`` is how to get it."""
        return load()

    def clock(self) -> float:
        """Seconds, from an arbitrary start, that have gone into this run."""
        return time.perf_counter()

    def bar(self, total: int) -> Bar:
        """Shows the progress of ``total`` evaluations."""
        return tqdm(total=total, desc="sampling", unit="step", disable=not sys.stderr.isatty(), leave=False)

    def synchronize(self, device: torch.device) -> None:
        """Wait for what ``device`` still computes, so that ``clock`` knows of it."""
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def finished(self, samples: int) -> None:
        """So many more samples are on disk."""

    @contextmanager
    def drawing(self, device: torch.device) -> Iterator[None]:
        """Around the time in which the model is called again and again."""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)  # runs of a sweep share a process
        yield

    @contextmanager
    def cpu_section(self) -> Iterator[None]:
        """Around work that keeps the processor busy, but not by calls of the model."""
        yield

    def end(self, status: str) -> None:
        """The run is over: ``done``, ``failed`` or ``interrupted``."""

    def twin(self, record: Mapping[str, Any]) -> Path | None:
        """The folder of a finished run that drew and measured the very samples of the run with this ``run.json``."""
        return None
