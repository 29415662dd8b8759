"""The process that a run takes place in: its own, or one that it shares with other cells of a batched sweep."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from diffexp.components.models.base import Model
from diffexp.experiment.writer import BackgroundWriter, Writer


class Bar(Protocol):
    """The part of tqdm that shows the progress of a run: ``n`` of ``total`` evaluations are done."""

    n: float
    total: float | None

    def update(self, n: int = 1) -> object: ...

    def refresh(self) -> object: ...

    def close(self) -> object: ...


class RunContext:
    """Services of the process that a run uses; here the run has the process to itself."""

    job: str | None = None
    """Name of the process in the system that started it, such as a SLURM job; None without one."""
    resumed: bool = False
    """Whether the run continues what an earlier process left in its folder."""
    divided: bool = False
    """Whether the run is divided into parts, of which other processes may draw some."""

    def model(self, load: Callable[[], Model]) -> Model:
        """The run's model; ``load`` returns it."""
        return load()

    def clock(self) -> float:
        """Seconds spent on this run, from an arbitrary start."""
        return time.perf_counter()

    def bar(self, total: int) -> Bar:
        """A progress bar of ``total`` evaluations."""
        return tqdm(total=total, desc="sampling", unit="step", disable=not sys.stderr.isatty(), leave=False)

    def synchronize(self, device: torch.device) -> None:
        """Wait for pending kernels on ``device``, so that ``clock`` includes them."""
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def writer(self) -> Writer:
        """What writes the samples of the run: a thread of its own, beside the one that draws them."""
        return BackgroundWriter()

    def finished(self, samples: int) -> None:
        """Count samples that have been written to disk."""

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Surround the generation of one batch of samples, in which the model is called again and again."""
        yield

    @contextmanager
    def cpu_section(self) -> Iterator[None]:
        """Surround CPU-heavy work (decoding, metrics, files); cells of a sweep do such work one at a time."""
        yield

    def find_duplicate(self, record: Mapping[str, Any]) -> Path | None:
        """The folder of a finished run whose samples and metrics equal those of the run with this ``run.json``."""
        return None


class OwnerContext(RunContext):
    """A run that other processes draw samples of too."""

    divided = True

    def __init__(self, job: str | None = None, *, resumed: bool = False) -> None:
        self.job = job
        self.resumed = resumed
