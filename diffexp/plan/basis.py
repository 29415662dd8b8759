"""Basis vectors, and the torch calls that a scheduler makes on them: draws of noise and clamps."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Vector = np.ndarray
"""Coefficients over all axes, float64."""


class Full(Exception):
    """More axes are needed than the vectors have."""


class Basis:
    """Unit vectors in the shape of a batch of images [directions, 1, 1, axes]: samplers index the batch.

    Args:
        axes: number of coefficients of a vector.
        directions: vectors that run side by side; ``fresh`` gives all of them the same.
    """

    def __init__(self, axes: int, directions: int = 1) -> None:
        self.shape = torch.Size((directions, 1, 1, axes))
        self.used = 0

    def unit(self, axis: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """The unit vector along an axis.

        Raises:
            Full: there are not so many.
        """
        if axis >= self.shape[-1]:
            raise Full
        found = torch.zeros(self.shape, dtype=dtype)
        found[..., axis] = 1.0
        return found

    def fresh(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The unit vector along the next axis that is not used."""
        self.used += 1
        return self.unit(self.used - 1, dtype)


def vector(x: Tensor) -> Vector:
    """The coefficients of a tensor in the shape of a basis with one direction."""
    return x.detach().to(torch.float64).reshape(-1).numpy().copy()


class Intercepted(TorchFunctionMode, ABC):
    """Replaces draws of noise in the shape of a sample, and clamps of such tensors where a subclass does."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape

    @abstractmethod
    def drawn(self, dtype: torch.dtype | None, device: Any) -> Tensor:
        """Standard normal noise in the shape of a sample; without a dtype the scheduler left it to torch."""

    def clamped(self, x: Tensor, low: Any, high: Any) -> Any:
        """The tensor clamped; NotImplemented: as torch does."""
        return NotImplemented

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        handler = _HANDLERS.get(func)
        found = NotImplemented if handler is None else handler(self, *args, **kwargs)
        return func(*args, **kwargs) if found is NotImplemented else found


def _on_clamp(mode: Intercepted, x: Tensor, min: Any = None, max: Any = None, **_: Any) -> Any:
    # Coefficients are clamped too (a variance, say); only tensors in the shape of a sample live on the axes.
    return mode.clamped(x, min, max) if isinstance(x, Tensor) and x.shape == mode.shape else NotImplemented


def _on_clamp_in_place(mode: Intercepted, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    found = _on_clamp(mode, x, *args, **kwargs)
    return found if found is NotImplemented else x.copy_(found)


def _on_clamp_min(mode: Intercepted, x: Tensor, min: Any) -> Any:
    return _on_clamp(mode, x, min, None)


def _on_clamp_max(mode: Intercepted, x: Tensor, max: Any) -> Any:
    return _on_clamp(mode, x, None, max)


def _on_randn_like(mode: Intercepted, x: Tensor, **kwargs: Any) -> Any:
    return mode.drawn(kwargs.get("dtype") or x.dtype, x.device) if x.shape == mode.shape else NotImplemented


def _on_randn(mode: Intercepted, *size: Any, **kwargs: Any) -> Any:
    shape = kwargs.get("size", size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
    same = torch.Size(shape) == mode.shape
    return mode.drawn(kwargs.get("dtype"), kwargs.get("device")) if same else NotImplemented


_HANDLERS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.clamp, torch.clip, Tensor.clamp, Tensor.clip), _on_clamp),
    **dict.fromkeys((Tensor.clamp_, Tensor.clip_, torch.clamp_, torch.clip_), _on_clamp_in_place),
    **dict.fromkeys((torch.clamp_min, Tensor.clamp_min), _on_clamp_min),
    **dict.fromkeys((torch.clamp_max, Tensor.clamp_max), _on_clamp_max),
    torch.randn_like: _on_randn_like,
    torch.randn: _on_randn,
}
