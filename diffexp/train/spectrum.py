"""Mean and spectrum of the training pictures, on which ``diffexp.certify`` measures exact errors."""

import logging
from pathlib import Path

import torch
from safetensors.torch import save_file

from diffexp.files import replace_whole
from diffexp.train.data import Digits

log = logging.getLogger(__name__)


def compute_spectrum(train: Digits, folder: Path) -> Path:
    """Write ``mnist_spectrum.safetensors``: the pixel covariance's eigenvalues and the mean along its eigenvectors.

    Tensors ``variances`` and ``mean``, both [1024] float32, largest variance first; pixels are in [-1, 1].
    """
    pixels = train.images.flatten(1)
    mean = pixels.double().mean(dim=0)
    covariance = sum(part.T @ part for part in (chunk.double() - mean for chunk in pixels.split(5000))) / len(pixels)
    variances, basis = torch.linalg.eigh(covariance)
    order = variances.argsort(descending=True)
    tensors = {"variances": variances[order].clamp(min=0).float(), "mean": (mean @ basis)[order].float()}
    path = folder / "mnist_spectrum.safetensors"
    with replace_whole(path) as temporary:
        save_file(tensors, temporary, metadata={"images": str(len(pixels))})
    log.info("%s: total variance %.2f over %d pixels", path, variances.sum().item(), len(variances))
    return path
