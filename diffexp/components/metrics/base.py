"""Protocols of metrics: updated batch by batch, computed once at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from torch import Tensor

from diffexp.components.media import stills
from diffexp.components.metrics.half_samples import SPLITS, Estimate

if TYPE_CHECKING:
    from diffexp.components.models.base import Model
    from diffexp.plan.table import Plan


@dataclass(frozen=True)
class RunFacts:
    """Facts about a finished run that metrics read."""

    nfe: int
    """Model evaluations per sample."""
    num_samples: int
    seconds: float
    """Wall time of sampling all samples, without loading, files and metrics."""
    model_seconds: float
    """The part of ``seconds`` spent inside the model."""
    scheduler_us_per_step: float | None
    """Microseconds per step outside the model; None where the loop does not measure them."""
    peak_memory_mb: float | None
    """Highest memory in use, in 10^6 bytes: of the device, or of the process on a CPU; None if unknown."""
    plan: Plan | None
    """None where the scheduler is not linear and ran directly, or the loop does more than run it from noise."""
    model: Model
    captions: Sequence[str] = ()
    """Captions of the samples (prompt, class), one per sample, in the order of the batches."""
    classes: Sequence[int | None] | None = None
    """The class that was asked for, of each sample; None where none was, of one sample or of all."""
    forward_passes: float | None = None
    """Forward passes of the network per sample, those for guidance included; None where they are not known."""
    indices: Sequence[int] = ()
    """Indices of the samples in the run, in the same order; set by ``MetricSuite``."""
    so_far: bool = False
    """Whether more samples are to come: values need no intervals, which take long, and few samples no warning."""
    few_on_purpose: bool = False
    """Whether there are fewer samples than one would like because a comparison takes no more: no warning either."""

    @property
    def splits(self) -> int:
        """The splits into halves that a value's interval is to be taken from: none while more samples are to come."""
        return 0 if self.so_far else SPLITS

    def indices_of(self, count: int) -> Sequence[int]:
        """The indices of ``count`` samples; 0, 1, 2 and so on where they are unknown."""
        return self.indices if len(self.indices) == count else range(count)

    def groups_of(self, count: int) -> Sequence[str] | None:
        """What was asked for, of each of ``count`` samples; None where it is unknown. See ``half_samples.splits``."""
        return self.captions if len(self.captions) == count else None


@dataclass(frozen=True)
class Finished:
    """A batch of finished samples."""

    samples: Tensor
    """(B, *model.shape), float32 on the CPU."""
    images: Tensor
    """The same decoded, (B, C, H, W) in [0, 1] on the CPU; for point models the samples themselves.

    Of videos their strips of frames, of sounds their spectrograms.
    """
    media: Tensor | None = None
    """Videos (B, F, C, H, W) in [0, 1] or sounds (B, channels, T) in [-1, 1]; None where the samples are neither."""

    @classmethod
    def of(cls, samples: Tensor, decoded: Tensor) -> Self:
        """A batch of ``samples`` (B, *model.shape) and what ``Model.decode`` returned for them."""
        decoded, images = decoded.float().cpu(), stills(decoded.float().cpu())
        return cls(samples.float().cpu(), images, decoded if decoded.shape != images.shape else None)


Value = float | Tensor | Estimate
"""A number; one value per sample, (N,) in the order of the batches, whose mean is reported; or a number and its spread.

The last two get 95 % intervals, ``<name>/low`` and ``<name>/high`` in ``metrics.json``, and paired comparisons.
"""


class Metric(Protocol):
    """A measurement of a run, with one or several values.

    A metric plugin is a class or factory marked ``@diffexp.metric`` whose keyword-only parameters are its options; the
    object has these three methods and belongs to one run. Smaller values count as better, except for those that
    ``@metric(higher_is_better=("precision", "recall"))`` lists, by the part of their name before a slash.

    With the class attribute ``reads_samples = True`` a run stores its raw samples until it is done, and the metric is
    skipped where they are missing; without it, ``samples`` of a resumed run are its image files, in [-1, 1].
    With ``running = True``, ``compute`` may be called at any moment, and trackers get the values so far; it may leave
    out what takes long where ``run.so_far``.
    """

    def applies(self, model: Model) -> str | None:
        """None if the metric applies to this model, otherwise the reason in one sentence."""
        ...

    def update(self, samples: Tensor, images: Tensor) -> None:
        """Add a batch.

        Args:
            samples: final samples (B, *model.shape), float32 on the CPU.
            images: the same decoded, (B, C, H, W) in [0, 1] on the CPU; for point models the samples themselves.
        """
        ...

    def compute(self, run: RunFacts) -> Mapping[str, Value]:
        """The values under their names in ``metrics.json``; empty where there are none."""
        ...


class SampleMetric(Protocol):
    """A measurement of each sample against the accurate solution from the same start noise.

    Also marked ``@diffexp.metric``; a pure function of a batch, whose values ``MetricSuite`` collects. Skipped in runs
    without such a solution: those whose sampler adds noise.
    """

    def applies(self, model: Model) -> str | None:
        """Return why the metric does not apply; see ``Metric.applies``."""
        ...

    def compare(self, ours: Finished, reference: Finished) -> Mapping[str, Tensor]:
        """One value per sample, (B,), under each name; sample i of both batches has the same start noise."""
        ...
