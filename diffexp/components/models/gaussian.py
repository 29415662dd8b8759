"""Gaussian data: the optimal denoiser is linear, so that a sampler's whole output distribution is known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Literal

import torch
from torch import Tensor

from diffexp import model
from diffexp.components.models.base import Runtime
from diffexp.components.models.exact import ExactModel, exact_dtype, exact_training, read_shape
from diffexp.errors import InputError

PIXEL_STD = 0.5  # of the default images: most pixels then lie in [-1, 1]


@dataclass(frozen=True)
class GaussianModel(ExactModel):
    """N(mean, covariance) in the eigenbasis of its covariance (Pierret & Galerne 2025, arXiv:2405.14250, section 3)."""

    mean: Tensor
    """[D], where D is the number of elements of ``shape``."""
    variances: Tensor
    """[D] eigenvalues of the covariance, >= 0."""
    axes: tuple[Tensor, ...]
    """An orthonormal matrix [n, n] for every axis of ``shape``, eigenvectors in columns: the basis is their Kronecker
    product, which an image is spared from multiplying out."""

    @property
    def id(self) -> str:
        return "gaussian"

    @cached_property
    def basis(self) -> Tensor:
        """[D, D], eigenvectors in columns, in the order of ``variances``."""
        return reduce(torch.kron, self.axes)

    @cached_property
    def covariance(self) -> Tensor:
        """[D, D]."""
        return (self.basis * self.variances) @ self.basis.T

    def sample_truth(self, count: int, generator: torch.Generator) -> Tensor:
        draws = torch.randn(count, len(self.mean), generator=generator, dtype=self.dtype).to(self.device)
        return (self.mean + self._from_basis(draws * self.variances.sqrt())).view(count, *self.shape)

    def clean_and_noise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        # In the eigenbasis x ~ N(alpha * mean, alpha^2 * variances + sigma^2), one coordinate at a time.
        whitened = self._to_basis(x - alpha * self.mean) / (alpha**2 * self.variances + sigma**2)
        clean = self.mean + self._from_basis(alpha * self.variances * whitened)
        return clean, self._from_basis(sigma * whitened)

    def _to_basis(self, x: Tensor) -> Tensor:
        return self._along_axes(x, [matrix.T for matrix in self.axes])

    def _from_basis(self, x: Tensor) -> Tensor:
        return self._along_axes(x, self.axes)

    def _along_axes(self, x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        out = x.view(len(x), *self.shape)
        for axis, matrix in enumerate(matrices, start=1):
            out = (out.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
        return out.reshape(x.shape)


@model(idle=["angle where shape!=[2]", "compile"])
def gaussian(
    runtime: Runtime,
    *,
    shape: Sequence[int] = (2,),
    mean: Sequence[float] | None = None,
    variances: Sequence[float] | None = None,
    angle: float = 30.0,
    schedule: Literal["vp", "ve", "edm", "flow"] = "vp",
    prediction: Literal["epsilon", "sample", "v_prediction", "flow_prediction"] | None = None,
) -> GaussianModel:
    """The optimal denoiser of Gaussian data.

    In two dimensions: an ellipse with variances 1 and 0.15, its long axis turned by ``angle``. Otherwise the spectrum
    of natural images, variance 1 / (1 + |k|^2) at frequency k of the discrete cosine transform, scaled to a standard
    deviation of 0.5 per element.

    Args:
        shape: [d] for points, [channels, height, width] for images.
        mean: one number per element; 0 by default.
        variances: eigenvalues of the covariance, one per element, along the turned axes or the cosine basis.
        angle: degrees, counter-clockwise; two dimensions only.
        schedule: how it was "trained": variance preserving, variance exploding, that preconditioned, or flow matching.
        prediction: what the "network" returns; null: what networks of this schedule usually do.

    Raises:
        InputError: a list of the wrong length, a negative variance, an impossible shape.
    """
    size, dtype = read_shape(shape), exact_dtype(runtime)
    planar = size == (2,)
    spread = variances if variances is not None else [1.0, 0.15] if planar else natural_spectrum(size)
    if any(value < 0 for value in spread):
        raise InputError(f"model.variances: {min(spread):g} is negative; a variance is at least 0")

    def place(values: Sequence[float] | Tensor) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float64).to(runtime.device, dtype)

    count = math.prod(size)
    return GaussianModel(
        shape=size,
        training=exact_training(schedule, prediction),
        device=runtime.device,
        dtype=dtype,
        mean=place(_one_per_element("mean", [0.0] * count if mean is None else mean, count)),
        variances=place(_one_per_element("variances", spread, count)),
        axes=tuple(place(matrix) for matrix in ([_rotation(angle)] if planar else [_cosines(n) for n in size])),
    )


def _one_per_element(name: str, values: Sequence[float], count: int) -> Sequence[float]:
    if len(values) != count:
        raise InputError(f"model.{name} has {len(values)} values; model.shape needs {count}")
    return values


def natural_spectrum(size: tuple[int, ...]) -> list[float]:
    """Variances along the cosines of pictures [channels, height, width] or [height, width]; 0.5 a pixel as deviation.

    1 / (1 + |k|^2) at frequency k, as natural images have it (van der Schaaf & van Hateren 1996).
    """
    spatial = size[1:] if len(size) == 3 else size
    frequencies = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64) for n in spatial]).view(-1, len(spatial))
    spectrum = 1 / (1 + frequencies.square().sum(1))
    channels = size[0] if len(size) == 3 else 1
    return (spectrum * PIXEL_STD**2 / spectrum.mean()).repeat(channels).tolist()


def _rotation(degrees: float) -> Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def _cosines(n: int) -> Tensor:
    """Orthonormal basis of the discrete cosine transform (DCT-II), one cosine a column."""
    place, frequency = torch.arange(n, dtype=torch.float64) + 0.5, torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(torch.outer(place, frequency) * math.pi / n) * math.sqrt(2 / n)
    matrix[:, 0] /= math.sqrt(2)
    return matrix
