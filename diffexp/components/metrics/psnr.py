"""Peak signal-to-noise ratio against the accurate solution from the same start noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from diffexp import metric
from diffexp.components.metrics.applicability import no_images
from diffexp.components.metrics.base import Finished
from diffexp.components.pixels import quantized

if TYPE_CHECKING:
    from diffexp.components.models.base import Model


@metric(name="psnr", higher_is_better=("psnr",), needed={"psnr": 16})
class PSNR:
    """``psnr``: in dB, larger is better; 59 dB is the rounding to 8 bits. The mean over the samples,
    unbiased, of which it takes 16 to be ranked; below 0 only for images that differ more than black from white.

    Distance of the samples to the solution of the ODE, whatever the images look like: see
    ``diffexp.experiment.reference``. Skipped for samplers that add noise, which solve an SDE.
    """

    def applies(self, model: Model) -> str | None:
        return no_images(model)

    def compare(self, ours: Finished, reference: Finished) -> dict[str, Tensor]:
        from torchmetrics.functional.image import peak_signal_noise_ratio  # seconds to import

        one_each = tuple(range(1, ours.images.ndim))
        values = peak_signal_noise_ratio(
            quantized(ours.images), reference.images, data_range=1.0, reduction="none", dim=one_each
        )
        return {"psnr": values}
