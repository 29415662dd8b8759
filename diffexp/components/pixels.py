"""Pixels: 8-bit rounding, PIL images and tensors in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    pass


def to_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """[B, channels, height, width] in [0, 1]."""
    return torch.stack([_pixels(picture) for picture in pictures])


def _pixels(picture: Image.Image) -> Tensor:
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return values.view(picture.height, picture.width, -1).permute(2, 0, 1).float() / 255


def as_saved(images: Tensor) -> Tensor:
    """Images in [0, 1] rounded to the 256 values of a PNG: what is measured is what was written."""
    return images.clamp(0, 1).mul(255).round().div(255)


def to_image(image: Tensor) -> Image.Image:
    """One image (C, H, W) in [0, 1], C = 1 or 3 (of more channels, the first three), as an 8-bit image."""
    channels = image[:3] if image.shape[0] >= 3 else image[:1]
    values = torch.nan_to_num(channels.float(), nan=0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    array = values.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
