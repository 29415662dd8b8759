"""Cost of a run: model evaluations, time and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from diffexp import metric
from diffexp.components.metrics.base import RunFacts

if TYPE_CHECKING:
    from diffexp.components.models.base import Model


@metric(
    higher_is_better=("images_per_second",),
    ranges={
        "nfe": (0, None),
        "forward_passes": (0, None),
        "seconds_per_image": (0, None),
        "images_per_second": (0, None),
        "scheduler_us_per_step": (0, None),
        "peak_memory_mb": (0, None),
    },
)
class Cost:
    """Evaluations, time and memory; lower is better except for ``images_per_second``.

    ``nfe`` counts the evaluations of the solver, ``forward_passes`` those of the network, both per sample: guidance
    evaluates the network more than once.
    """

    running = True

    def applies(self, model: Model) -> str | None:
        return None

    def update(self, samples: Tensor, images: Tensor) -> None:
        pass

    def compute(self, run: RunFacts) -> dict[str, float]:
        values: dict[str, float | None] = {
            "nfe": run.nfe,
            "forward_passes": run.forward_passes,
            "seconds_per_image": run.seconds / run.num_samples if run.num_samples else None,
            "images_per_second": run.num_samples / run.seconds if run.seconds else None,
            "scheduler_us_per_step": run.scheduler_us_per_step,
            "peak_memory_mb": run.peak_memory_mb,
        }
        return {name: value for name, value in values.items() if value is not None}
