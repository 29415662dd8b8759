"""Watching a run from its model calls: progress, snapshots, time.

Every scheduler and every loop, compiled or not, comes by the network once per evaluation; that is where it is watched.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from diffexp.components.models.base import Condition, Model
from diffexp.errors import InputError
from diffexp.experiment.context import RunContext
from diffexp.experiment.pictures.strips import Snapshot
from diffexp.plan.execute import Network
from diffexp.plan.levels import CLEAN, Level
from diffexp.plan.method import combine

Predict = Callable[[Tensor, Tensor, Condition], Tensor]
ParallelNetwork = Callable[[Tensor, Sequence[Level]], Tensor]
"""``(u [levels, batch, *shape], levels) -> raw output`` in the same shape, in one call of the network."""

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
class Monitor:
    """Counts evaluations of a whole run; one object for all of its batches."""

    model: Model
    nfe: int
    """Evaluations per sample, as far as they are known beforehand."""
    batches: int
    """How many are left."""
    snapshot_every: int | None
    max_nfe: int | None = None
    """The run's own limit."""
    context: RunContext = field(default_factory=RunContext)
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
        self._bar = self.context.bar(self.nfe * self.batches)
        self._first = True
        self._began = time.perf_counter()

    def expect(self, batches: int) -> None:
        """So many batches are left: the end that the progress bar counts down to."""
        self.batches = batches
        self._bar.total = self._bar.n + self.nfe * batches
        self._bar.refresh()

    def expect_evaluations(self, nfe: int) -> None:
        """A batch takes so many a sample: said before its first one, where the sampler alone takes another number.

        Raises:
            InputError: more than the run may take.
        """
        if self.max_nfe is not None and nfe > self.max_nfe:
            raise InputError(f"max_nfe={self.max_nfe}: the loop takes {nfe} evaluations; give fewer steps")
        if self._first:  # of later ones it is known
            self.nfe, self._keep = nfe, snapshot_steps(nfe, self.snapshot_every)
            self.expect(self.batches)

    def begin_batch(self) -> None:
        self.batch_nfe = 0
        if self._first:  # it may be begun a second time, with fewer samples
            self.snapshots.clear()
            self.steps.clear()

    def network(self, predict: Predict, condition: Condition) -> Network:
        """The network of one batch, watched."""
        return lambda u, level: self._ask(predict, condition, u.unsqueeze(0), (level,)).squeeze(0)

    def network_at_once(self, predict: Predict, condition: Condition) -> ParallelNetwork:
        """The network of one batch at many levels in one call, watched; each level counts as an evaluation."""
        repeated = lru_cache(maxsize=1)(lambda times: _repeat(condition, times))
        return lambda u, levels: self._ask(predict, repeated(len(levels)), u, levels)

    def _ask(self, predict: Predict, condition: Condition, u: Tensor, levels: Sequence[Level]) -> Tensor:
        """``u`` [levels, batch, *shape]; the condition has a row for each of the levels * batch."""
        began = self.context.clock()
        device, exact = self.model.device, torch.promote_types(self.model.dtype, torch.float32)
        # Filled on the device: copying from the host would wait for it.
        t = torch.cat([torch.full((u.shape[1],), level.timestep, device=device, dtype=exact) for level in levels])
        output = predict(u.flatten(0, 1), t, condition).to(u.dtype).reshape(u.shape)
        self.model_seconds += self.context.clock() - began
        for level, seen, said in zip(levels, u, output):
            self.seen(seen, said, level)
        return output

    def seen(self, u: Tensor, output: Tensor, level: Level) -> None:
        """An evaluation has taken place: ``u`` and ``output`` [batch, *shape] at ``level``."""
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


def _repeat(condition: Condition, times: int) -> Condition:
    """The condition of the batch, ``times`` over."""

    def over(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: torch.cat([value] * times) for key, value in tensors.items()}

    negative = None if condition.negative is None else over(condition.negative)
    return Condition(over(condition.positive), negative, condition.captions * times)
