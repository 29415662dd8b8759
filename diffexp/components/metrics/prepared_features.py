"""Base of feature networks for images of any kind: they scale images to the size that they were trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as Pillow's mode L has them."""


class PreparedFeatures(nn.Module, ABC):
    """Base class of networks that take images of any size and number of channels.

    Grey images become three equal channels. Sizes are changed by bicubic interpolation with antialiasing, without
    regard to the aspect ratio, as clean-fid does (Parmar et al. 2022, "On aliased resizing and surprising subtleties
    in GAN evaluation").

    Args:
        mean, deviation: subtracted from, and dividing, the channels of images in [0, 1].
    """

    domain: str | None = None
    """Of images of any kind."""
    image_shape: tuple[int, int, int] | None = None
    num_classes: int | None = None
    num_features: int
    size: int
    """Side of the images that the network sees."""
    batch_size = 32
    """Images at a time, so that activations fit into a few hundred MB."""
    _mean: Tensor
    _deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("_mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("_deviation", torch.tensor(deviation).view(1, -1, 1, 1), persistent=False)

    @abstractmethod
    def features_of(self, prepared: Tensor) -> Tensor:
        """Normalised images (N, 3, size, size) to features (N, num_features)."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to features (N, num_features)."""
        scaled = resized(with_channels(images, 3), (self.size, self.size))
        return self.features_of((scaled - self._mean) / self._deviation)


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Images (N, C, H, W) with ``channels`` channels, 1 or 3: grey ones repeated, colours as their luminance.

    Of more than three channels the first three count.
    """
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images[:, :3] if images.shape[1] > 3 else images[:, :1].expand(-1, 3, -1, -1)
    weights = torch.tensor(LUMINANCE, device=images.device).view(1, 3, 1, 1)
    return (with_channels(images, 3) * weights).sum(dim=1, keepdim=True)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (N, C, H, W) scaled to ``size`` (height, width)."""
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)


def package_needed(name: str, package: str, extra: str | None = None) -> str:
    """Say that the features ``name`` need a package, and how to install it."""
    choice = f"pip install 'diffexp[{extra}]' or {package}" if extra else f"pip install {package}"
    return f"features={name} needs the package {package}: {choice}"
