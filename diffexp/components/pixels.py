"""Pixels: images in [0, 1], samples in the model's range [-1, 1], 8-bit values, PIL images."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor


def from_model_range(x: Tensor) -> Tensor:
    """Pixels in [-1, 1] as float32 images in [0, 1] on the CPU; what lies outside is clipped."""
    return (x.float() / 2 + 0.5).clamp(0, 1).cpu()


def to_model_range(images: Tensor) -> Tensor:
    """Images in [0, 1] as pixels in [-1, 1]."""
    return images * 2 - 1


def quantized(images: Tensor) -> Tensor:
    """Images in [0, 1] rounded to the 256 values of a PNG, so that metrics measure what was written."""
    return _shades(images).div(255)


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8; what lies outside is clipped."""
    return _shades(images).byte()


def _shades(images: Tensor) -> Tensor:
    return images.clamp(0, 1).mul(255).round()


def to_pixels(images: Tensor) -> Tensor:
    """Images [B, C, H, W] in [0, 1] as uint8 with 1 or 3 channels (of more channels, the first three); NaN is grey."""
    channels = images[:, :3] if images.shape[1] >= 3 else images[:, :1]
    return to_bytes(torch.nan_to_num(channels.float(), nan=0.5))


def to_image(image: Tensor) -> Image.Image:
    """One image (C, H, W) in [0, 1] as an 8-bit image; see ``to_pixels``."""
    return pixels_to_image(to_pixels(image[None])[0])


def pixels_to_image(pixels: Tensor) -> Image.Image:
    """An image from uint8 [1 or 3, H, W]."""
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def image_to_pixels(image: Image.Image) -> Tensor:
    """The pixels of an 8-bit image, uint8 [channels, H, W]."""
    values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return values.view(image.height, image.width, -1).permute(2, 0, 1)


def to_tensor(images: Sequence[Image.Image]) -> Tensor:
    """8-bit images of one size as [B, channels, height, width] in [0, 1]."""
    return torch.stack([image_to_pixels(image) for image in images]).float() / 255
