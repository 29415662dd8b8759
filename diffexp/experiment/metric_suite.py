"""The metrics of one run, updated batch by batch; one that raises is dropped, and nothing else is lost."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor

from diffexp.catalog.sources import default_choices
from diffexp.components.metrics.base import Finished, Metric, RunFacts, SampleMetric
from diffexp.components.metrics.half_samples import Estimate, estimate, mean_of
from diffexp.components.models.base import Model
from diffexp.errors import InputError
from diffexp.experiment.per_sample import as_column, write_per_sample

log = logging.getLogger(__name__)

T = TypeVar("T")


class Solutions(Protocol):
    """The accurate solutions of a run; see ``diffexp.experiment.reference``."""

    @property
    def missing(self) -> str | None:
        """Why there are none; None where there are."""
        ...

    def __call__(self, indices: Sequence[int]) -> Tensor: ...


class MetricSuite:
    """The metrics of a run that apply to it; a metric that raises is dropped and logged.

    Args:
        solutions: what ``SampleMetric`` compares with; without it such metrics do not apply.
        in_sweep: whether the run is a cell of a sweep, where other cells may have the solutions that this one has not;
            its metrics that need them are dropped with a warning.

    Raises:
        InputError: metrics that were asked for do not apply. The default ones, which are for models of all kinds, are
            dropped instead.
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric | SampleMetric],
        model: Model,
        solutions: Solutions | None = None,
        *,
        in_sweep: bool = False,
    ) -> None:
        self._model = model
        self._solutions = solutions
        self._metrics = dict(metrics)
        self._indices: list[int] = []
        self._compared: dict[str, dict[str, list[Tensor]]] = {}
        self._columns: dict[str, Tensor] = {}
        self._estimates: dict[str, Estimate] = {}
        self._later: set[str] = set()
        by_default = [*metrics] == default_choices()["metric"]
        reasons: dict[str, str] = {}
        for name, metric in metrics.items():
            if reason := self._guarded(name, lambda metric=metric: metric.applies(model)):
                reasons[name] = reason
        for name in self._comparing():
            reason = "there is nothing to compare with" if solutions is None else solutions.missing
            if reason and in_sweep and name not in reasons:
                self._drop(name, reason, logging.WARNING)
            elif reason:
                reasons.setdefault(name, reason)
        if reasons and not by_default:
            rest = ",".join(name for name in metrics if name not in reasons)
            why = "; ".join(f"metric={name} does not apply: {reason}" for name, reason in reasons.items())
            raise InputError(f"{why}; write metric={f'[{rest}]' if rest else 'none'}")
        for name, reason in reasons.items():
            self._drop(name, reason, logging.DEBUG)

    @property
    def reads_samples(self) -> bool:
        """Whether some metric reads more of the samples than their 8-bit images."""
        return bool(self._reading())

    def postpone_others(self, names: Sequence[str]) -> None:
        """Compute these metrics alone now; the others, which later rounds of the run compute, read no samples yet.

        Args:
            names: as in the config; where none of them is there, all are computed.
        """
        if any(name in self._metrics for name in names):
            self._later = {*self._metrics} - {*names}

    @property
    def _now(self) -> dict[str, Metric | SampleMetric]:
        return {name: metric for name, metric in self._metrics.items() if name not in self._later}

    def only_images(self) -> None:
        """Drop the metrics that read more than images, because some samples are known as images alone."""
        for name in self._reading():
            self._drop(name, "of resumed samples only the images are known", logging.WARNING)

    def _reading(self) -> list[str]:
        return [name for name, metric in self._metrics.items() if getattr(metric, "reads_samples", False)]

    def update(self, indices: Sequence[int], samples: Tensor, images: Tensor) -> None:
        """Take in a batch of the run's samples with these indices.

        Args:
            samples: [B, *shape], on the CPU.
            images: [B, C, H, W] in [0, 1], on the CPU; points as they are.
        """
        self._indices += indices
        for name, metric in self._now.items():
            if not hasattr(metric, "compare"):
                self._guarded(name, lambda metric=metric: cast(Metric, metric).update(samples, images))
        self._compare(indices, Finished(samples, images))

    def compute(self, facts: RunFacts) -> dict[str, float]:
        """Compute all values, flat; an interval adds two, ``<name>/low`` and ``<name>/high``."""
        facts = replace(facts, indices=tuple(self._indices))
        values: dict[str, float] = {}
        for name, metric in self._now.items():
            computed = self._guarded(name, lambda name=name, metric=metric: self._compute(name, metric, facts))
            values |= computed or {}
        return values

    def so_far(self, facts: RunFacts) -> dict[str, float]:
        """The values so far, without intervals, of the metrics that have them at any moment."""
        facts = replace(facts, indices=tuple(self._indices), so_far=True)
        values: dict[str, float] = {}
        for name, metric in self._now.items():
            if not (hasattr(metric, "compare") or getattr(metric, "running", False)):
                continue
            try:
                found = self._computed(name, metric, facts)
                values |= {key: _value(own, len(self._indices)) for key, own in found.items()}
            except Exception as error:  # perhaps of too few samples
                log.debug("no %s so far: %s", name, error)
        return {name: value for name, value in values.items() if math.isfinite(value)}

    @property
    def estimates(self) -> Mapping[str, Estimate]:
        """The values that have intervals, once computed: with those on halves of the samples."""
        return dict(self._estimates)

    def write(self, folder: Path) -> None:
        """Write per-sample values and the values on halves of the samples to the folder of the run."""
        halves = {name: found.halves for name, found in self._estimates.items()}
        write_per_sample(folder, self._indices, self._columns, halves)

    def _comparing(self) -> list[str]:
        return [name for name, metric in self._metrics.items() if hasattr(metric, "compare")]

    def _compare(self, indices: Sequence[int], ours: Finished) -> None:
        names = [name for name in self._comparing() if name not in self._later]
        if not names or self._solutions is None:
            return
        try:
            solutions = self._solutions(indices)
            reference = Finished.of(solutions, self._model.decode(solutions.to(self._model.device)))
        except Exception as error:
            for name in names:
                self._fail(name, error)
            return
        for name in names:
            metric = cast(SampleMetric, self._metrics[name])
            columns = self._guarded(name, lambda metric=metric: metric.compare(ours, reference))
            for key, column in (columns or {}).items():
                self._compared.setdefault(name, {}).setdefault(key, []).append(column.detach().cpu())

    def _compute(self, name: str, metric: Metric | SampleMetric, facts: RunFacts) -> dict[str, float]:
        values: dict[str, float] = {}
        for key, value in self._computed(name, metric, facts).items():
            try:
                values |= self._numbers(key, value, facts.indices)
            except (TypeError, ValueError, RuntimeError) as error:
                log.error("metric %s: %s is skipped, it is not one number per run or per sample: %s", name, key, error)
        return values

    def _computed(self, name: str, metric: Metric | SampleMetric, facts: RunFacts) -> Mapping[str, Any]:
        if hasattr(metric, "compare"):
            return {key: torch.cat(parts) for key, parts in self._compared.get(name, {}).items()}
        return cast(Metric, metric).compute(facts)

    def _numbers(self, name: str, value: Any, indices: Sequence[int]) -> dict[str, float]:
        """A number (or tensor with one element) as it is; per-sample values and estimates with their intervals."""
        column = as_column(value, len(indices))
        if column is not None and len(column):
            self._columns[name] = column
            value = estimate(mean_of(column), indices)
        if not isinstance(value, Estimate):
            return {name: value if isinstance(value, int) else float(value)}
        self._estimates[name] = value
        low_high = value.interval
        ends = {f"{name}/low": low_high[0], f"{name}/high": low_high[1]} if low_high else {}
        return {name: value.value} | ends

    def _guarded(self, name: str, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except Exception as error:  # a mistake in a plugin must not cost the samples
            self._fail(name, error)
            return None

    def _fail(self, name: str, error: Exception) -> None:
        log.error("metric %s failed and is dropped: %s: %s", name, type(error).__name__, error)
        log.debug("its traceback", exc_info=error)
        del self._metrics[name]

    def _drop(self, name: str, reason: str, level: int) -> None:
        log.log(level, "metric %s is skipped: %s", name, reason)
        del self._metrics[name]


def _value(value: Any, samples: int) -> float:
    """A value that a metric computed, as one number."""
    column = as_column(value, samples)
    if column is not None and len(column):
        return column.double().mean().item()
    return value.value if isinstance(value, Estimate) else float(value)
