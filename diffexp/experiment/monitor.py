"""Monitoring of a run from its model evaluations: progress, snapshots, timing.

Every scheduler and every loop, compiled or not, evaluates the network through what is handed out here.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from diffexp.components.guidance.base import Predict
from diffexp.components.loops.base import ParallelNetwork
from diffexp.components.models.base import Condition, Model, laid_out, state_dtype
from diffexp.components.models.passes import PassCounter
from diffexp.components.trackers.several import Trackers
from diffexp.errors import InputError
from diffexp.experiment.context import RunContext
from diffexp.experiment.live import Live
from diffexp.experiment.pictures.strips import Snapshot
from diffexp.experiment.tally import Tally
from diffexp.plan.execute import Network
from diffexp.plan.levels import CLEAN, Level
from diffexp.plan.method import combine

SHOWN_IMAGES, SHOWN_POINTS = 8, 2000
"""How many samples of the first batch the snapshots hold."""


def snapshot_steps(nfe: int, every: int | None) -> frozenset[int]:
    """The evaluations at which to take a snapshot: every ``every``-th, by default ten spread over the run.

    The finished samples are a snapshot too. ``every = 0`` takes none.
    """
    if every is None:
        count = min(nfe, 9)
        return frozenset(round(i * nfe / count) for i in range(count)) if count else frozenset()
    return frozenset(range(0, nfe, every)) if every else frozenset()


@dataclass
class Evaluator:
    """Hands out the networks of a model; nothing observes them."""

    model: Model
    passes: PassCounter = field(default_factory=PassCounter, kw_only=True)
    """Counts the forward passes of ``model``."""

    def network(self, predict: Predict, condition: Condition) -> Network:
        """The network of one batch."""
        return lambda u, level: self._evaluate(predict, condition, u.unsqueeze(0), (level,)).squeeze(0)

    def network_at_once(self, predict: Predict, condition: Condition) -> ParallelNetwork:
        """The network of one batch at many levels in one call; each level counts as an evaluation."""
        if getattr(self.model, "guides", False):  # a call in progress takes one level after the other
            network = self.network(predict, condition)
            return lambda u, levels: torch.stack([network(x, level) for x, level in zip(u, levels)])
        repeated = lru_cache(maxsize=1)(lambda times: _repeat(condition, times))
        return lambda u, levels: self._evaluate(predict, repeated(len(levels)), u, levels)

    def _evaluate(self, predict: Predict, condition: Condition, u: Tensor, levels: Sequence[Level]) -> Tensor:
        """``u`` [levels, batch, *shape]; the condition has a row for each of the levels * batch."""
        device, dtype = self.model.device, state_dtype(self.model)
        # Filled on the device: copying from the host would wait for it.
        t = torch.cat([torch.full((u.shape[1],), level.timestep, device=device, dtype=dtype) for level in levels])
        return predict(u.flatten(0, 1), t, condition).to(u.dtype).reshape(u.shape)

    def on_evaluation(self, u: Tensor, output: Tensor, level: Level) -> None:
        """See ``Monitor``."""

    def expect_evaluations(self, nfe: int) -> None:
        """See ``Monitor``."""


@dataclass
class Monitor(Evaluator):
    """Counts, times and shows the evaluations of a whole run; one object for all of its batches."""

    nfe: int
    """Evaluations per sample, as far as they are known beforehand; later those of the finished samples, on average."""
    batches: int
    """How many are left."""
    snapshot_every: int | None
    max_nfe: int | None = None
    """The run's own limit."""
    context: RunContext = field(default_factory=RunContext)
    live: Live = field(default_factory=lambda: Live(Trackers({}), 0))
    """Logs the scalars of the first batch's steps, and previews."""
    tally: Tally = field(default_factory=Tally)
    """Of the finished batches, also of those of the earlier attempts that this run continues."""
    evaluations: int = 0
    """Of the whole run."""
    batch_nfe: int = 0
    """Evaluations of the current batch."""
    max_forward_passes: int | None = None
    """The run's own limit, per sample."""

    def __post_init__(self) -> None:
        self._snapshots: list[Snapshot] = []
        self._snapshot_steps = snapshot_steps(self.nfe, self.snapshot_every)
        self._bar = self.context.bar(self.nfe * self.batches)
        self._first = True
        self._began = time.perf_counter()
        self._batch_began = 0.0
        self._rows_before = 0
        self._x0_before: Tensor | None = None

    @property
    def snapshots(self) -> list[Snapshot]:
        """Snapshots of the first batch, on the CPU."""
        return [replace(s, steps=self.nfe, x=s.x.float().cpu(), x0=s.x0.float().cpu()) for s in self._snapshots]

    def record(self) -> dict[str, Any]:
        """The entries of ``run.json`` that describe sampling so far."""
        return self.tally.record | {"nfe": self.nfe}

    def expect(self, batches: int) -> None:
        """Set the number of batches that are left, which the progress bar counts down."""
        self.batches = batches
        self._bar.total = self._bar.n + self.nfe * batches
        self._bar.refresh()

    def expect_evaluations(self, nfe: int) -> None:
        """Set the number of evaluations per sample, before the first one.

        Raises:
            InputError: more than ``max_nfe``.
        """
        if self.max_nfe is not None and nfe > self.max_nfe:
            raise InputError(f"max_nfe={self.max_nfe}: the loop takes {nfe} evaluations; give fewer steps")
        if self._first:  # known for later ones
            self.nfe, self._snapshot_steps = nfe, snapshot_steps(nfe, self.snapshot_every)
            self.expect(self.batches)

    def begin_batch(self) -> None:
        """Start timing and counting a batch; the first may begin a second time, with fewer samples."""
        self._batch_began = self.context.clock()
        self._rows_before = self.passes.rows
        self.batch_nfe = 0
        if self._first:
            self._snapshots.clear()
            self.live.restart()

    def finish_batch(self, x: Tensor) -> None:
        """Stop timing a batch; its samples ``x`` [batch, *shape] are the last snapshot of the first one."""
        self.tally.evaluations += self.batch_nfe * len(x)
        self.tally.drawn += len(x)
        self.nfe = self.tally.nfe or 0
        self.expect(self.batches - 1)
        if self._first and self.snapshot_every != 0:
            shown = x[: SHOWN_POINTS if x.ndim == 2 else SHOWN_IMAGES]
            self._take_snapshot(self.batch_nfe, CLEAN, shown, shown)
        self._first, self._x0_before = False, None
        self.live.flush()
        self.context.synchronize(self.model.device)  # once per batch, so that its time is its own
        self.tally.seconds += self.context.clock() - self._batch_began
        self.tally.passes += self.passes.rows - self._rows_before

    def close(self) -> None:
        self._bar.close()

    def _evaluate(self, predict: Predict, condition: Condition, u: Tensor, levels: Sequence[Level]) -> Tensor:
        began = self.context.clock()
        output = super()._evaluate(predict, condition, u, levels)
        self.tally.model_seconds += self.context.clock() - began
        for level, u_at_level, output_at_level in zip(levels, u, output):
            self.on_evaluation(u_at_level, output_at_level, level)
        return output

    def on_evaluation(self, u: Tensor, output: Tensor, level: Level) -> None:
        """Count an evaluation: ``u`` and ``output`` [batch, *shape] at ``level``; snapshots show the first batch."""
        step = self.batch_nfe
        self.batch_nfe += 1
        self.evaluations += 1
        self._bar.update()
        limit = self.max_forward_passes
        if limit is not None and self.passes.rows - self._rows_before > limit * len(u):
            raise InputError(f"max_forward_passes={limit}: the run takes more; give fewer steps")
        snapshot = self._first and step in self._snapshot_steps
        shown_now = snapshot or self.live.is_due
        if not (shown_now or (self._first and self.live)):
            return
        shown = SHOWN_POINTS if u.ndim == 2 else SHOWN_IMAGES
        u, output = u[:shown], output[:shown]
        try:
            predicted = combine(self.model.prediction.clean(level), u, output)
        except InputError:  # without any signal, where the noise says nothing of x0
            if snapshot:
                raise
            predicted = None
        if predicted is output:  # which the solver may change
            predicted = output.clone()
        x0 = predicted if predicted is None or self.model.clip is None else self.model.clip(predicted)
        if snapshot and x0 is not None:
            self._take_snapshot(step, level, u, x0)
        if self.live:
            scalars = self._scalars(u, predicted, x0, level) if self._first else {}
            self.live.step(step, scalars, laid_out(self.model, x0) if shown_now and x0 is not None else None)

    def _scalars(
        self, u: Tensor, predicted: Tensor | None, x0: Tensor | None, level: Level
    ) -> dict[str, float | Tensor]:
        """Scalars of a step; those that are computed from samples are of the shown ones, and stay on the device.

        Args:
            u: what the network sees, [n, *shape].
            predicted: x0 before it is clipped; None where nothing is known of it.
        """
        elapsed = time.perf_counter() - self._began
        scalars: dict[str, float | Tensor] = {
            "timestep": level.timestep,
            "steps_per_second": self.evaluations / elapsed,
            "x_std": u.float().std(correction=0),
        }
        if math.isfinite(sigma := self.model.schedule.sigma_of(level)):  # not so without any signal
            scalars["sigma"] = sigma
        if x0 is None or predicted is None:
            return scalars
        if self.model.clip is not None:
            scalars["clipped_share"] = (predicted != x0).float().mean()
        if self._x0_before is not None and self._x0_before.shape == x0.shape:
            scalars["x0_change_rms"] = (x0 - self._x0_before).float().square().mean().sqrt()
        self._x0_before = x0
        return scalars

    def _take_snapshot(self, step: int, level: Level, x: Tensor, x0: Tensor) -> None:
        # A copy, because the solver may change its tensors. It stays on its device until the run is over.
        x, x0 = (laid_out(self.model, one).clone() for one in (x, x0))
        self._snapshots.append(Snapshot(step, self.nfe, level, x, x0, self.model.schedule.sigma_of(level)))


def _repeat(condition: Condition, times: int) -> Condition:
    """The condition of the batch, ``times`` over."""

    def repeat(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: torch.cat([value] * times) for key, value in tensors.items()}

    negative = None if condition.negative is None else repeat(condition.negative)
    return Condition(repeat(condition.positive), negative, condition.captions * times)
