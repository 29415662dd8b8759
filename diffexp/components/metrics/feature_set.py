"""Feature sets: a feature network, with the statistics of real images that samples are compared with."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffexp.components.metrics.applicability import no_images
from diffexp.components.models.base import picture_shape
from diffexp.components.pixels import quantized
from diffexp.errors import InputError

if TYPE_CHECKING:
    from diffexp.components.models.base import Model

WEIGHTS = Path(__file__).parent / "weights"
"""The folder of what ships."""


@dataclass(frozen=True, eq=False)
class ReferenceStatistics:
    """Feature moments of the real images (float64), and the features of some of them."""

    total: Tensor
    """Sum of the features, (F,)."""
    outer: Tensor
    """Sum of the outer products of the features, (F, F), not centred."""
    num_samples: int
    samples: Tensor
    """Features of a random subset, (M, F) float32: for KID, precision and the like."""
    labels: Tensor | None = None
    """The class of each of ``samples``, (M,) int64, where it is known."""

    @classmethod
    def of(cls, samples: Tensor) -> "ReferenceStatistics":
        """The statistics of these features alone, (M, F)."""
        features = samples.double()
        return cls(features.sum(dim=0), features.T @ features, len(samples), samples)

    @classmethod
    def of_moments(
        cls, mean: Tensor, covariance: Tensor, num_samples: int, samples: Tensor, labels: Tensor | None
    ) -> "ReferenceStatistics":
        """The statistics with this mean (F,) and unbiased covariance (F, F), float64."""
        outer = covariance * (num_samples - 1) + num_samples * mean.outer(mean)
        return cls(mean * num_samples, outer, num_samples, samples, labels)

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (F,) and unbiased covariance (F, F), float64."""
        mean = self.total / self.num_samples
        return mean, (self.outer - self.num_samples * mean.outer(mean)) / (self.num_samples - 1)


NO_IMAGES = ReferenceStatistics(torch.zeros(0), torch.zeros(0, 0), 0, torch.zeros(0, 0))


@dataclass(frozen=True)
class FeatureSet:
    """A feature network in evaluation mode, with its features of real images."""

    name: str
    network: Any
    """A module from images (N, *image_shape) in [0, 1] to features (N, F), with the attributes ``num_features``,
    ``domain`` and ``image_shape``, both None where it takes images of any kind; a classifier also has ``head``, from
    features to the scores of classes."""
    reference: ReferenceStatistics
    """Of no images where the network comes without any."""
    metadata: Mapping[str, str]
    """Quality of the network: ``test_accuracy``, ``floor_test``, ``floor_train``."""
    images: str = ""
    """The name of the real images; empty for those that ship."""

    @property
    def label(self) -> str:
        """The name in those of metrics: of the network, and of real images that do not ship, ``mnist_cnn@digits``."""
        return f"{self.name}@{self.images}" if self.images else self.name

    def why_not(self, model: "Model") -> str | None:
        """Why the features do not describe the images of a model, as a sentence; None where they do."""
        if not self.reference.num_samples:
            return (
                f"the features {self.name} come without real images to compare with; give metric.fid.reference=FILE, "
                f"made by 'python -m diffexp.train task=reference images=DIR features={self.name}'"
            )
        if self.network.domain is None:
            return no_images(model)
        domain = getattr(model, "feature_domain", None)
        if domain == self.network.domain and tuple(picture_shape(model)) == self.network.image_shape:
            return None
        return f"the features {self.name} describe {self.network.domain} images, not those of {model.id}"

    def reference_of(self, classes: Sequence[int | None] | None) -> ReferenceStatistics:
        """The real images to compare with samples of these classes: of the same classes, in the same proportions.

        For all classes alike, or without any, they are all real images; otherwise those among ``samples`` of these
        classes. Of mnist_cnn, whose network itself says what they are (it is right for 99.5 % of the test images),
        there are about 500 a class, so few that a Frechet distance to them is about 0.1 too large. Where the classes of
        the real images are not known, they are all real images.

        Args:
            classes: that of each sample; None, for a sample or for all, where none was asked for.

        Raises:
            InputError: only some samples have a class, or there are no real images of one.
        """
        counts = Counter(classes or ())
        labels = None if counts.keys() <= {None} else _labels(self.network, self.reference)
        if labels is None:
            return self.reference
        if None in counts:
            raise InputError("some samples are of a class that was asked for and others of none")
        if len(counts) == len(labels.unique()) and max(counts.values()) - min(counts.values()) <= 1:
            return self.reference
        return _of_classes(self.reference, labels, tuple(sorted(counts.items(), key=str)))

    def of(self, images: Tensor) -> Tensor:
        """Features (N, F) float32 of images (N, *image_shape) in [0, 1], as their PNGs hold them.

        The features of the last batch are cached, because several metrics read the same batches.
        """
        return _of_batch(self.network, images)


@lru_cache(maxsize=4)  # modules and statistics are hashed by identity
def _labels(network: Any, reference: ReferenceStatistics) -> Tensor | None:
    """The classes of the stored real images, (M,); None where neither the images nor a classifier say what they are."""
    if reference.labels is not None or not hasattr(network, "head"):
        return reference.labels
    with torch.no_grad():
        return network.head(reference.samples).argmax(dim=1)


@lru_cache(maxsize=16)
def _of_classes(
    reference: ReferenceStatistics, labels: Tensor, counts: tuple[tuple[int, int], ...]
) -> ReferenceStatistics:
    """As many real images as there are, with classes in proportion to the counts."""
    rows = {label: (labels == label).nonzero().flatten() for label, _ in counts}
    scale = min(len(rows[label]) / count for label, count in counts)
    if scale == 0:
        missing = next(label for label, _ in counts if not len(rows[label]))
        raise InputError(f"there are no real images of class {missing}")
    chosen = torch.cat([rows[label][: max(1, round(scale * count))] for label, count in counts])
    return ReferenceStatistics.of(reference.samples[chosen.sort().values])


@lru_cache(maxsize=1)
def _of_batch(network: nn.Module, images: Tensor) -> Tensor:  # tensors are hashed by identity
    return extract_features(network, quantized(images))


@torch.no_grad()
def extract_features(network: nn.Module, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Features (N, F) float32 on the CPU of images (N, *image_shape) in [0, 1].

    Args:
        batch_size: images at a time; None: as many as the network's attribute of this name, else 500.
    """
    size = batch_size or getattr(network, "batch_size", 500)
    device = next(iter(network.parameters())).device
    return torch.cat([network(batch.to(device)).cpu() for batch in images.split(size)])
