"""What a metric is: fed batch by batch, asked once at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from diffexp.components.metrics.bootstrap import Estimate

if TYPE_CHECKING:
    from diffexp.components.models.base import Model
    from diffexp.plan.table import Plan


@dataclass(frozen=True)
class RunFacts:
    """What a finished run knows about itself."""

    nfe: int
    """Model evaluations per sample."""
    num_samples: int
    seconds: float
    """Wall time of sampling, all samples together; loading, decoding to files and metrics are not in it."""
    model_seconds: float
    """The part of ``seconds`` spent inside the model."""
    scheduler_us_per_step: float | None
    """Microseconds a step outside the model; None where the loop does not measure it."""
    peak_memory_mb: float | None
    """Highest memory in use, in 10^6 bytes: of the device, or of the process on a CPU; None if unknown."""
    plan: Plan | None
    """None where the scheduler is not linear and ran directly, or the loop does more than run it from noise."""
    model: Model
    captions: Sequence[str] = ()
    """What was asked for, one a sample, in the order in which the batches came."""
    indices: Sequence[int] = ()
    """Which samples of the run they are, in the same order; filled in by ``MetricSuite``."""

    def indices_of(self, count: int) -> Sequence[int]:
        """The indices of ``count`` samples; where they are not known, 0, 1, 2 and so on."""
        return self.indices if len(self.indices) == count else range(count)


@dataclass(frozen=True)
class Finished:
    """A batch of finished samples."""

    samples: Tensor
    """(B, *model.shape), float32 on the CPU."""
    images: Tensor
    """The same decoded, (B, C, H, W) in [0, 1] on the CPU; for point models the samples themselves."""


Value = float | Tensor | Estimate
"""A number; one value a sample, (N,) in the order of the batches, whose mean is reported; or a number with resamples.

The last two get 95 % intervals, ``<name>/low`` and ``<name>/high`` in ``metrics.json``, and paired comparisons.
"""


class Metric(Protocol):
    """One measurement (or a few) of a run.

    A metric plugin is a class or factory marked ``@diffexp.metric`` whose keyword-only parameters are its options;
    what it returns has these three methods. One object serves one run. Smaller values count as better, except for those
    that ``@metric(higher_is_better=("precision", "recall"))`` names, by the part of their name before a slash.

    With the class attribute ``reads_samples = True`` a run keeps its samples until it is done, and the metric is left
    out where they were not kept; without it, ``samples`` that are taken over are their pictures, in [-1, 1].
    """

    def applies(self, model: Model) -> str | None:
        """None if the metric makes sense for this model, otherwise one sentence that says why not."""
        ...

    def update(self, samples: Tensor, images: Tensor) -> None:
        """Take in a batch.

        Args:
            samples: final samples (B, *model.shape), float32 on the CPU.
            images: the same decoded, (B, C, H, W) in [0, 1] on the CPU; for point models the samples themselves.
        """
        ...

    def compute(self, run: RunFacts) -> Mapping[str, Value]:
        """The values under the names they have in ``metrics.json``; empty where there is nothing to say."""
        ...


class SampleMetric(Protocol):
    """A measurement of each sample against the accurate solution from the same start noise.

    Also marked ``@diffexp.metric``; a pure function of a batch, so ``MetricSuite`` does the rest. Skipped in runs
    without such a solution: those whose sampler draws noise on its way.
    """

    def applies(self, model: Model) -> str | None:
        """As ``Metric.applies``."""
        ...

    def compare(self, ours: Finished, reference: Finished) -> Mapping[str, Tensor]:
        """One value a sample, (B,), under each name; sample by sample the two are of one start noise."""
        ...
