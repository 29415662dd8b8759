"""The finished samples of a run, and what sampling took."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffexp.experiment.pictures.strips import Snapshot
from diffexp.experiment.tally import Tally


@dataclass(frozen=True)
class Samples:
    """The finished samples of a run and what sampling took."""

    indices: Sequence[int]
    """In the order of the batches."""
    captions: Sequence[str]
    shown: Tensor | None
    """The first images [n, C, H, W] in [0, 1], or all points [N, d]; None where there are no samples."""
    nfe: int
    """Model evaluations per sample."""
    forward_passes: float | None
    """Forward passes of the network per sample, those for guidance included; None where they are not known."""
    tally: Tally
    """What the sampling of those that were drawn took, in all processes together."""
    snapshots: Sequence[Snapshot] = ()
    interrupted: bool = False
    drew_noise: bool = True
    """Whether the samples depend on the seed, as far as is known."""
    peak_memory_mb: float | None = None
    """The most memory that another process used; None where this one drew all samples."""
