"""Feature networks for images of any kind: they scale what they get to the size that they were trained on.

``efficientnet_lite0``  with the weights of a package on the index
``inception_v3``        of torch-fidelity, the usual one for FID, where that is installed
a folder, a hub id      a vision checkpoint of transformers: DINOv2, ViT, the image side of CLIP, ...

They come without real images: those are in a file that ``python -m diffexp.train task=reference`` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffexp.components.metrics.prepared_features import package_needed, with_channels
from diffexp.components.pixels import to_bytes
from diffexp.errors import InputError


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
