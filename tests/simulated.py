"""How often intervals hold the true value, and how often equal cells are found to differ, of simulated features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.feature_metric import FeatureMetric
from diffexp.components.metrics.half_samples import Estimate, spread
from diffexp.components.metrics.significance import p_value

SIZE = 64
"""Features of ``mnist_cnn``."""
SHARED = 0.8
"""The share of the noise that two cells have in common, as an amplitude."""


@dataclass(frozen=True)
class Found:
    """What a simulation of some repetitions has found, as shares of them."""

    covered: float
    """Intervals of single values that hold the mean over all."""
    independent: float
    """Pairs of cells from other noise that differ at 5 %, though their distribution is the same."""
    paired: float
    """The same of pairs whose noise is shared in part."""


def draws(name: str, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draws of expectation 0 and variance 1: the last axis is of features."""
    normal = torch.randn(*shape, generator=generator, dtype=torch.float64)
    if name == "heavy-tailed":  # Student's t of 5 degrees
        chi = torch.randn(*shape, 5, generator=generator, dtype=torch.float64).square().mean(dim=-1)
        return normal / chi.sqrt() * 0.6**0.5
    if name == "correlated":
        own = torch.Generator().manual_seed(1)
        return normal @ torch.randn(shape[-1], shape[-1], generator=own, dtype=torch.float64) / shape[-1] ** 0.5
    return normal


def value_of(kind: Callable[[], FeatureMetric], features: Tensor) -> Estimate:
    """A metric of features (N, F)."""
    metric: Any = kind()
    metric.batches.append(features.float())
    unknown: dict[str, Any] = dict.fromkeys(("scheduler_us_per_step", "peak_memory_mb", "plan", "model"))
    run = RunFacts(5, len(features), 1.0, 1.0, few_on_purpose=True, **unknown)
    (found,) = metric.compute(run).values()
    return found


def differ(first: Estimate, second: Estimate) -> bool:
    """Whether two cells differ at 5 %."""
    variance, freedom = spread(first.halves - second.halves, first.count)
    return p_value(first.value - second.value, variance.sqrt().item(), freedom.item()) < 0.05


def simulate(
    kind: Callable[[], FeatureMetric], name: str, count: int, repetitions: int, scale: float = 1.0, seed: int = 0
) -> Found:
    """Measure runs of ``count`` samples, two from the same noise in each repetition.

    Args:
        name: of the distribution, see ``draws``.
        scale: of the features, in those of the real images.
    """
    metric = kind()
    mean, covariance = metric.features.reference.moments
    root, generator = torch.linalg.cholesky(covariance), torch.Generator().manual_seed(seed)
    cells: list[tuple[Estimate, Estimate]] = []
    for _ in range(repetitions):
        common, *own = draws(name, (3, count, SIZE), generator)
        both = [mean + scale * (SHARED * common + (1 - SHARED**2) ** 0.5 * one) @ root.T for one in own]
        cells.append((value_of(kind, both[0]), value_of(kind, both[1])))
    values = [one for pair in cells for one in pair]
    truth = sum(one.value for one in values) / len(values)
    held = [low <= truth <= high for one in values for low, high in [one.interval or (truth, truth)]]
    others = [(first, after[1]) for (first, _), after in zip(cells, [*cells[1:], cells[0]])]
    return Found(
        sum(held) / len(held),
        sum(differ(*pair) for pair in others) / len(others),
        sum(differ(*pair) for pair in cells) / len(cells),
    )
