"""Base class of the metrics that compare features of all samples with those of real images."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffexp.components.metrics.applicability import enough_samples
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.feature_set import ReferenceStatistics
from diffexp.components.metrics.features import DEFAULT, SHIPPED, load_features
from diffexp.components.metrics.reference_file import load_reference
from diffexp.errors import InputError

if TYPE_CHECKING:
    from diffexp.components.models.base import Model


log = logging.getLogger(__name__)

BLOCK = 4096
"""Samples whose features become one tensor: many small ones would be spread over the heap, and fragment it."""


class FeatureMetric:
    """A metric that collects the features of its run's samples, and compares them with real images.

    Where classes are asked for, the real images are of these classes; see ``FeatureSet.reference_of``.

    Args:
        features: name of a feature set, see ``load_features``; None: that of the reference, without one the one for the
            images of the model.
        reference: a file of real images' statistics that ``python -m diffexp.train task=reference`` wrote; None: the
            real images that ship with the features.

    Raises:
        InputError: unknown ``features``, or a reference that cannot be read or has other features.
    """

    running = True

    def __init__(self, features: str | None, reference: str | None) -> None:
        self._given = features or reference
        self.features = load_reference(reference, features) if reference else load_features(features or DEFAULT)
        self.batches: list[Tensor] = []

    def applies(self, model: Model) -> str | None:
        domain = getattr(model, "feature_domain", None)
        if not self._given and domain in SHIPPED:
            self.features = load_features(SHIPPED[domain])
        reason = self.features.why_not(model)
        if not reason and self.features.network.domain is None:
            self.features.network.to(model.device)  # a large network, unlike those of a domain
        return reason

    def update(self, samples: Tensor, images: Tensor) -> None:
        self.batches.append(self.features.of(images))
        small = [batch for batch in self.batches if len(batch) < BLOCK]
        if sum(map(len, small)) >= BLOCK:
            self.batches = [*self.batches[: -len(small)], torch.cat(small)]

    def compared(self, name: str, run: RunFacts, fewest: int = 2) -> tuple[Tensor, ReferenceStatistics] | None:
        """Features of all samples (N, F), float32, and the real images to compare with: those of the same classes.

        None, with a warning, if ``name`` needs more samples than there are, or their classes cannot be compared with.
        """
        if not enough_samples(name, sum(map(len, self.batches)), run, fewest):
            return None
        try:
            return torch.cat(self.batches), self.features.reference_of(run.classes)
        except InputError as reason:
            log.log(logging.DEBUG if run.so_far else logging.WARNING, "%s: skipped, %s", name, reason)
            return None
