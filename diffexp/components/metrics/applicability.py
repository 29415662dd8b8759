"""Conditions of metrics: the models and numbers of samples that they apply to."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

from diffexp.components.media import media_of
from diffexp.components.metrics.so_far import is_few_on_purpose, is_so_far
from diffexp.components.models.base import picture_shape
from diffexp.errors import InputError

if TYPE_CHECKING:
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


_FOUND: ContextVar[dict[bool, list[str]] | None] = ContextVar("too few", default=None)
"""The values of few samples: those that can be computed, and those that cannot."""


@contextmanager
def warnings_together(count: int) -> Iterator[None]:
    """Log what ``enough_samples`` finds in the block in one line for all metrics.

    Args:
        count: the number of samples.
    """
    found: dict[bool, list[str]] = {True: [], False: []}
    token = _FOUND.set(found)
    try:
        yield
    finally:
        _FOUND.reset(token)
        few, skipped = ", ".join(found[True]), ", ".join(found[False])
        if skipped:
            samples = "1 sample is" if count == 1 else f"{count} samples are"
            log.info("%s too few for %s", samples, skipped)
        if few:
            log.warning("%d samples are few to compare by %s; use num_samples=%d or more", count, few, FEW_SAMPLES)


def enough_samples(name: str, count: int, fewest: int = 2) -> bool:
    """Whether ``name`` can be computed from ``count`` samples; logs a warning if not, or if they are too few."""
    if is_so_far():
        return count >= fewest
    if count < fewest and is_few_on_purpose():
        return False
    together = _FOUND.get()
    if together is not None and count < max(fewest, FEW_SAMPLES) and not is_few_on_purpose():
        together[count >= fewest].append(name)
        return count >= fewest
    if count < fewest:
        log.warning("%s: skipped, it needs at least %d samples and this run has %d", name, fewest, count)
        return False
    if count < FEW_SAMPLES and not is_few_on_purpose():
        log.warning("%s: %d samples are too few to compare; use num_samples=%d or more", name, count, FEW_SAMPLES)
    return True
