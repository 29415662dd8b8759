"""Conditions of metrics: the models and numbers of samples that they apply to."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from diffexp.components.media import media_of
from diffexp.components.models.base import picture_shape
from diffexp.errors import InputError

if TYPE_CHECKING:
    from diffexp.components.metrics.base import RunFacts
    from diffexp.components.models.base import Model

log = logging.getLogger(__name__)

FEW_SAMPLES = 1000
"""Below this many samples the bias of a distance between distributions hides differences between images."""


def no_images(model: Model) -> str | None:
    """Why a metric of images does not apply, as a sentence; None for models of images."""
    if media := media_of(model):
        return f"the samples of {model.id} are {media.plural}"
    with suppress(InputError):
        picture_shape(model)
        return None
    return f"the samples of {model.id} are points"


def enough_samples(name: str, count: int, run: RunFacts, fewest: int = 2) -> bool:
    """Whether ``name`` can be computed from ``count`` samples; logs a warning if not, or if they are too few."""
    if run.so_far or run.few_on_purpose:
        return count >= fewest
    if count < fewest:
        log.warning("%s: skipped, it needs at least %d samples and this run has %d", name, fewest, count)
        return False
    if count < FEW_SAMPLES:
        log.warning("%s: %d samples are too few to compare; use num_samples=%d or more", name, count, FEW_SAMPLES)
    return True
