"""What the image-quality metrics share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffexp.components.models.base import Model

log = logging.getLogger(__name__)

FEW_SAMPLES = 1000
"""Below this many samples a distance between distributions says more about the number than about the images."""


def not_mnist(model: Model) -> str | None:
    """Why MNIST features say nothing about this model's images; None where they do."""
    if model.id == "mnist" and tuple(model.shape) == (1, 32, 32):
        return None
    return f"the features mnist_cnn only know MNIST digits, not what {model.id} draws"


def no_images(model: Model) -> str | None:
    """Why there is nothing to look at; None for models of images."""
    return None if len(model.shape) == 3 else f"the samples of {model.id} are points"


def enough_samples(name: str, count: int, fewest: int = 2) -> bool:
    """Whether ``name`` can be computed at all from ``count`` samples; says so in the log where it is doubtful."""
    if count < fewest:
        log.warning("%s: left out, it needs at least %d samples and this run has %d", name, fewest, count)
        return False
    if count < FEW_SAMPLES:
        log.warning("%s: %d samples are too few to compare; use num_samples=%d or more", name, count, FEW_SAMPLES)
    return True
