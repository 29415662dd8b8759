"""What a metric is: fed batch by batch, asked once at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from diffexp.models.base import Model
    from diffexp.plan import Plan


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
    """None where the scheduler is not linear and ran directly."""
    model: Model


class Metric(Protocol):
    """One measurement (or a few) of a run.

    A metric plugin is a class or factory marked ``@diffexp.metric`` whose keyword-only parameters are its options;
    what it returns has these three methods. One object serves one run.
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

    def compute(self, run: RunFacts) -> dict[str, float]:
        """The values under the names they have in ``metrics.json``; empty where there is nothing to say."""
        ...
