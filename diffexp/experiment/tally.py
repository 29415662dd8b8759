"""What sampling took: evaluations, forward passes and time, summed over batches, processes and attempts at a run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass
class Tally:
    """What the sampling of some finished samples took."""

    drawn: int = 0
    """Samples."""
    evaluations: int = 0
    """Of the solver, of all samples together."""
    passes: float = 0.0
    """Forward passes of the network, of all samples together; NaN where an earlier attempt did not count them."""
    seconds: float = 0.0
    """Sampling alone, without writing files."""
    model_seconds: float = 0.0
    """Inside model calls; on a GPU, which computes later, this is the time to launch them."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """The sampling that a ``run.json`` describes."""
        drawn, known = record["drawn"], record.get("forward_passes")
        passes = drawn * (math.nan if known is None else known) if drawn else 0.0
        evaluations = drawn * (record["nfe"] or 0)
        return cls(drawn, evaluations, passes, record["sampling_seconds"], record["model_seconds"])

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __sub__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, field.name) - getattr(other, field.name) for field in fields(self)))

    @property
    def nfe(self) -> int | None:
        """Evaluations per sample, rounded: an adaptive solver takes more for some samples than for others."""
        return round(self.evaluations / self.drawn) if self.drawn else None

    @property
    def forward_passes(self) -> float | None:
        """Forward passes per sample; None where they are not known."""
        mean = self.passes / self.drawn if self.passes and self.drawn else math.nan
        return None if math.isnan(mean) else int(mean) if mean.is_integer() else mean

    @property
    def record(self) -> dict[str, Any]:
        """The entries of ``run.json`` that describe it; see ``of``."""
        return {
            "nfe": self.nfe,
            "forward_passes": self.forward_passes,
            "drawn": self.drawn,
            "sampling_seconds": self.seconds,
            "model_seconds": self.model_seconds,
        }
