"""The metrics of one run, fed batch by batch; one that fails is left out, and nothing else is lost."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from diffexp.metrics.base import Metric, RunFacts
from diffexp.models.base import Model

log = logging.getLogger(__name__)

T = TypeVar("T")


class Meters:
    """Those of the metrics that make sense for the model."""

    def __init__(self, metrics: Mapping[str, Metric], model: Model) -> None:
        self._metrics = dict(metrics)
        for name, metric in metrics.items():
            reason = self._guarded(name, lambda metric=metric: metric.applies(model))
            if reason:
                log.debug("metric %s is left out: %s", name, reason)
                del self._metrics[name]

    def update(self, samples: Tensor, images: Tensor) -> None:
        """Take in a batch: samples [B, *shape] and images [B, C, H, W] in [0, 1], on the CPU."""
        for name, metric in list(self._metrics.items()):
            self._guarded(name, lambda metric=metric: metric.update(samples, images))

    def compute(self, facts: RunFacts) -> dict[str, float]:
        """All values, flat."""
        values: dict[str, float] = {}
        for name, metric in list(self._metrics.items()):
            told = self._guarded(name, lambda metric=metric: _numbers(metric.compute(facts)))
            values |= told or {}
        return values

    def _guarded(self, name: str, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except Exception as error:  # a plugin's mistake must not cost the samples
            log.error("metric %s failed and is left out: %s: %s", name, type(error).__name__, error)
            log.debug("its traceback", exc_info=error)
            del self._metrics[name]
            return None


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Also of tensors with one element, which many a metric returns."""
    return {key: value if isinstance(value, int) else float(value) for key, value in values.items()}
