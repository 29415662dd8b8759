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


def log_few(count: int, run: RunFacts) -> None:
    """Log which values of a run are of few samples, in one line for those that are computed and one for the others.

    Args:
        count: the number of samples.
        run: with the names that ``enough_samples`` has collected.
    """
    few, skipped = (", ".join(run.few.get(computed, ())) for computed in (True, False)) if run.few else ("", "")
    if skipped:
        log.info("%s too few for %s", "1 sample is" if count == 1 else f"{count} samples are", skipped)
    if few:
        log.warning("%d samples are few to compare by %s; use num_samples=%d or more", count, few, FEW_SAMPLES)


def enough_samples(name: str, count: int, run: RunFacts, fewest: int = 2) -> bool:
    """Whether ``name`` can be computed from ``count`` samples; logs a warning if not, or if they are too few."""
    if run.so_far or run.few_on_purpose:
        return count >= fewest
    if run.few is not None and count < max(fewest, FEW_SAMPLES):
        run.few.setdefault(count >= fewest, []).append(name)
        return count >= fewest
    if count < fewest:
        log.warning("%s: skipped, it needs at least %d samples and this run has %d", name, fewest, count)
        return False
    if count < FEW_SAMPLES:
        log.warning("%s: %d samples are too few to compare; use num_samples=%d or more", name, count, FEW_SAMPLES)
    return True
