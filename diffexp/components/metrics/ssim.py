"""Structural similarity to the accurate solution from the same start noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffexp import metric
from diffexp.components.metrics.applicability import no_images
from diffexp.components.metrics.base import Finished
from diffexp.components.models.base import picture_shape
from diffexp.components.pixels import quantized

if TYPE_CHECKING:
    from diffexp.components.models.base import Model

WINDOW = 11


@metric(name="ssim", higher_is_better=("ssim",), ranges={"ssim": (-1, 1)})
class SSIM:
    """``ssim``: 1 for the same image, larger is better (Wang et al. 2004). The mean over the samples.

    Against the same solution as ``psnr``, in Gaussian windows of 11 pixels.
    """

    def applies(self, model: Model) -> str | None:
        reason = no_images(model)
        if reason or min(picture_shape(model)[1:]) >= WINDOW:
            return reason
        return f"images smaller than {WINDOW} pixels have no window"

    def compare(self, ours: Finished, reference: Finished) -> dict[str, Tensor]:
        from torchmetrics.functional.image import structural_similarity_index_measure  # seconds to import

        values = structural_similarity_index_measure(
            quantized(ours.images), reference.images, data_range=1.0, reduction="none", kernel_size=WINDOW
        )
        assert isinstance(values, Tensor)  # a tuple only with return_full_image
        return {"ssim": torch.atleast_1d(values)}
