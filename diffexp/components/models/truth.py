"""Models whose data distribution is known, so that samples can be compared with the truth."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from diffexp.plan.predictions import Target


@runtime_checkable
class KnowsTruth(Protocol):
    """A model whose data distribution can be sampled."""

    def sample_truth(self, count: int, generator: torch.Generator) -> Tensor:
        """Samples of the data, [count, *shape]."""
        ...


@runtime_checkable
class KnowsGaussian(KnowsTruth, Protocol):
    """A model whose data are N(mean, covariance); D is the number of elements of a sample."""

    @property
    def mean(self) -> Tensor:
        """[D]."""
        ...

    @property
    def covariance(self) -> Tensor:
        """[D, D]."""
        ...

    @property
    def variances(self) -> Tensor:
        """[D] eigenvalues of the covariance, >= 0."""
        ...

    @property
    def basis(self) -> Tensor:
        """[D, D], eigenvectors in columns, in the order of ``variances``."""
        ...

    @property
    def prediction(self) -> Target: ...


def true_samples(model: object, count: int) -> Tensor | None:
    """[count, *shape] draws from the data distribution on the CPU, the same each time; None where it is not known."""
    if not isinstance(model, KnowsTruth):
        return None
    return model.sample_truth(count, torch.Generator().manual_seed(0)).cpu()
