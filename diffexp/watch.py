"""Watching a run from its model calls: progress, snapshots, time.

Every scheduler and every loop, compiled or not, comes by the network once per evaluation; that is where it is watched.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from diffexp.levels import CLEAN, Level
from diffexp.models.base import Condition, Model
from diffexp.pictures import Snapshot
from diffexp.plan.execute import Network
from diffexp.plan.method import combine

Predict = Callable[[Tensor, Tensor, Condition], Tensor]

SHOWN_IMAGES, SHOWN_POINTS = 8, 2000
"""How many samples of the first batch the snapshots hold."""


def snapshot_steps(nfe: int, every: int | None) -> frozenset[int]:
    """Which evaluations are kept: every ``every``-th, by default ten spread over the run (the end is always kept).

    ``every = 0`` keeps none.
    """
    if every is None:
        count = min(nfe, 9)
        return frozenset(round(i * nfe / count) for i in range(count)) if count else frozenset()
    return frozenset(range(0, nfe, every)) if every else frozenset()


@dataclass
class Watch:
    """Counts evaluations of a whole run; one object for all of its batches."""

    model: Model
    nfe: int
    """Evaluations per sample, as far as they are known beforehand."""
    batches: int
    """How many are left."""
    snapshot_every: int | None
    snapshots: list[Snapshot] = field(default_factory=list)
    steps: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """Scalars of the first batch's steps, for the tracker; kept here so that tracking costs the loop nothing."""
    model_seconds: float = 0.0
    """Inside model calls; on a GPU, which computes later, this is the time to launch them."""
    evaluations: int = 0
    """Of the whole run."""
    batch_nfe: int = 0
    """Evaluations of the batch at hand."""

    def __post_init__(self) -> None:
        self._keep = snapshot_steps(self.nfe, self.snapshot_every)
        self._bar = tqdm(
            total=self.nfe * self.batches, desc="sampling", unit="step", disable=not sys.stderr.isatty(), leave=False
        )
        self._first = True
        self._began = time.perf_counter()

    def expect(self, batches: int) -> None:
        """So many batches are left: the end that the progress bar counts down to."""
        self.batches = batches
        self._bar.total = self._bar.n + self.nfe * batches
        self._bar.refresh()

    def network(self, predict: Predict, condition: Condition) -> Network:
        """The network of one batch, watched."""
        self.batch_nfe = 0
        if self._first:  # it may be begun a second time, with fewer samples
            self.snapshots.clear()
            self.steps.clear()
        device = self.model.device
        exact = torch.promote_types(self.model.dtype, torch.float32)

        def call(u: Tensor, level: Level) -> Tensor:
            began = time.perf_counter()
            t = torch.full((len(u),), level.timestep, device=device, dtype=exact)
            output = predict(u, t, condition).to(u.dtype)
            self.model_seconds += time.perf_counter() - began
            self._seen(u, output, level)
            return output

        return call

    def _seen(self, u: Tensor, output: Tensor, level: Level) -> None:
        step = self.batch_nfe
        self.batch_nfe += 1
        self.evaluations += 1
        self._bar.update()
        if not self._first:
            return
        if step in self._keep:
            shown = SHOWN_POINTS if u.ndim == 2 else SHOWN_IMAGES
            self._snap(step, level, u[:shown], self._clean(u[:shown], output[:shown], level))
        elapsed = time.perf_counter() - self._began
        scalars = {"timestep": level.timestep, "sigma": level.sigma, "steps_per_second": self.evaluations / elapsed}
        self.steps.append((step, scalars))

    def finish_batch(self, x: Tensor) -> None:
        """The batch is done; its samples close the film of the first one."""
        if self._first:
            self.nfe = self.batch_nfe
        self.expect(self.batches - 1)
        if self._first and self.snapshot_every != 0:
            shown = x[: SHOWN_POINTS if x.ndim == 2 else SHOWN_IMAGES]
            self._snap(self.batch_nfe, CLEAN, shown, shown)
        self._first = False

    def close(self) -> None:
        self._bar.close()

    def _clean(self, u: Tensor, output: Tensor, level: Level) -> Tensor:
        x0 = combine(self.model.prediction.clean(level), u, output)
        return x0 if self.model.clip is None else self.model.clip(x0)

    def _snap(self, step: int, level: Level, x: Tensor, x0: Tensor) -> None:
        # A copy: what the solver holds it may go on to change. It stays on its device until the run is over.
        self.snapshots.append(Snapshot(step, self.nfe, level, x.clone(), x0.clone()))
