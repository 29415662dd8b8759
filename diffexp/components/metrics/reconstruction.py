"""Distance of samples to given images: what an inversion, image-to-image or inpainting changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffexp import metric
from diffexp.components.metrics.applicability import no_images
from diffexp.components.metrics.base import RunFacts
from diffexp.components.models.base import picture_shape
from diffexp.components.pixels import to_bytes, to_tensor
from diffexp.components.user_files import read_images

if TYPE_CHECKING:
    from diffexp.components.models.base import Model


@metric(higher_is_better=("reconstruction",), needed={"reconstruction": 16})
class Reconstruction:
    """``reconstruction/psnr`` in dB, larger is better: of the samples, as they are saved, against the given images.

    One value per sample, 0 to 60; their mean is unbiased and takes 16 to be ranked. Without any difference it is 60,
    about what rounding to 8 bits would leave. Samples are stored as bytes until the run ends.

    Args:
        image: a file, or a folder whose images are assigned to the samples in turn; by default that of the loop.
    """

    def __init__(self, *, image: str = "${loop.image}") -> None:
        self.image = image
        self.images: list[Tensor] = []

    def applies(self, model: Model) -> str | None:
        return no_images(model)

    def update(self, samples: Tensor, images: Tensor) -> None:
        self.images.append(to_bytes(images))

    def compute(self, run: RunFacts) -> dict[str, Tensor]:
        images = torch.cat(self.images)
        given = read_images(
            "metric.reconstruction.image", self.image, picture_shape(run.model), run.indices_of(len(images))
        )
        errors = [(one.float() / 255 - to_tensor([own])[0]).square().mean() for one, own in zip(images, given)]
        return {"reconstruction/psnr": -10 * torch.log10(torch.stack(errors).clamp_min(1e-6))}
