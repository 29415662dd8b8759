"""Feature networks for images of any kind: they scale what they get to the size that they were trained on.

``efficientnet_lite0``  with the weights of a package on the index
``inception_v3``        of torch-fidelity, the usual one for FID, where that is installed
a folder, a hub id      a vision checkpoint of transformers: DINOv2, ViT, the image side of CLIP, ...

They come without real images: those are in a file that ``python -m diffexp.train task=reference`` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffexp.components.pixels import to_bytes
from diffexp.errors import InputError

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as Pillow's mode L has them."""


class PreparedFeatures(nn.Module):
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

    def features_of(self, prepared: Tensor) -> Tensor:
        """Normalised images (N, 3, size, size) to features (N, num_features)."""
        raise NotImplementedError

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


class Inception(nn.Module):
    """The Inception network of FID, torch-fidelity's, as torchmetrics evaluates it: bytes in, 2048 features out."""

    domain = None
    image_shape = None
    num_classes = None
    num_features = 2048
    batch_size = 32

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to features (N, 2048)."""
        return self.network(to_bytes(with_channels(images, 3)))


def package_needed(name: str, package: str, extra: str | None = None) -> str:
    """Say that the features ``name`` need a package, and how to install it."""
    choice = f"pip install 'diffexp[{extra}]' or {package}" if extra else f"pip install {package}"
    return f"features={name} needs the package {package}: {choice}"


def load_inception() -> Inception:
    """The network, downloaded by torch-fidelity where torch's cache lacks it.

    Raises:
        InputError: torch-fidelity is not installed, or its weights are neither there nor can be downloaded.
    """
    from torchmetrics.image.fid import NoTrainInceptionV3  # seconds to import

    try:
        return Inception(NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"]))
    except ImportError:
        raise InputError(package_needed("inception_v3", "torch-fidelity")) from None
    except OSError as error:  # urllib's errors are of this kind
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise InputError(
            f"features=inception_v3: the weights of torch-fidelity cannot be downloaded ({error}); copy "
            f"weights-inception-2015-12-05-6726825d.pth, which 'torch-fidelity' downloads, to {folder}"
        ) from None


def _efficientnet_lite0() -> nn.Module:
    from diffexp.components.metrics.efficientnet import load_efficientnet_lite0

    return load_efficientnet_lite0()


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "efficientnet_lite0": _efficientnet_lite0,
    "inception_v3": load_inception,
}


@cache
def load_network(given: str) -> Any:
    """The network of this name, or of a checkpoint, in evaluation mode on the CPU; the same at every call.

    Args:
        given: one of ``NETWORKS``; a folder or a hub id, ``facebook/dinov2-small``.

    Raises:
        InputError: it is not known, or what it needs is missing.
    """
    if given in NETWORKS:
        found = NETWORKS[given]()
    else:
        from diffexp.components.metrics.vision_checkpoint import load_vision_checkpoint

        found = load_vision_checkpoint(given)
    return found.eval().requires_grad_(False)


def is_checkpoint(given: str) -> bool:
    """Whether the name of a feature set is that of a checkpoint: a folder or a hub id."""
    return "/" in given or Path(given).expanduser().is_dir()
