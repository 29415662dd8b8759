"""Distance to the accurate solution from the same start noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from diffexp import metric
from diffexp.components.metrics.base import Finished

if TYPE_CHECKING:
    from diffexp.components.models.base import Model


@metric(ranges={"trajectory_error": (0, None)}, needed={"trajectory_error": 16})
class TrajectoryError:
    """``trajectory_error``: root mean square difference, >= 0, smaller is better.

    In the units of the samples (pixels: -1 to 1); a mean over samples, unbiased, of which it takes 16 to be ranked.
    Between the output of the solver and the end of the exact trajectory from the same noise, averaged over the samples:
    the global error of a solver of the probability-flow ODE, for pixels, latents and points alike.
    """

    reads_samples = True

    def applies(self, model: Model) -> str | None:
        return None

    def compare(self, ours: Finished, reference: Finished) -> dict[str, Tensor]:
        difference = (ours.samples - reference.samples).flatten(start_dim=1)
        return {"trajectory_error": difference.square().mean(dim=1).sqrt()}
