"""Tracing: a scheduler runs on basis vectors, and its sample after each step is that step's row."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from diffexp.plan.levels import Level
from diffexp.plan.method import Method

Vector = np.ndarray
"""Coefficients over all axes, float64."""


class NotLinear(Exception):
    """The scheduler is not a table: its output is not a linear function of samples, outputs, clamps and noise."""


class _Full(Exception):
    """More axes are needed than the vectors have."""


@dataclass
class TapeClamp:
    vector: Vector
    low: float
    high: float
    axis: int


@dataclass
class TapeRow:
    """Trace from one model evaluation up to the next."""

    level: Level
    scale: float
    x: Vector
    m_axis: int
    clamps: list[TapeClamp] = field(default_factory=list)
    z_axes: list[int] = field(default_factory=list)


@dataclass
class Recording:
    rows: list[TapeRow]
    start_z_axes: list[int]
    output: Vector
    single: bool
    """Whether the scheduler computed in float32 somewhere, so that its table is only good to 1e-7."""


def record(method: Method) -> Recording:
    """Trace a method.

    Raises:
        NotLinear: an operation on a sample that no table can express.
    """
    capacity = 4 * method.nfe + 32  # room for a start, and an output, a clamp and two draws a step
    while True:
        try:
            return _record(method, capacity)
        except _Full:
            capacity *= 4


def _record(method: Method, capacity: int) -> Recording:
    tape = _Tape(capacity)
    with tape:
        output = method(tape.evaluate, tape.basis(), tape.noise)
    if not isinstance(output, Tensor) or output.shape != tape.shape:
        raise NotLinear(f"{method.name} returned {_describe(output)} instead of a sample")
    return Recording(tape.rows, tape.start_z_axes, tape.vector(output), tape.single)


class _Tape(TorchFunctionMode):
    """Provider of basis vectors that intercepts clamps and noise among the torch calls."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        # Four axes like a batch of images: samplers index the batch and append axes to their coefficients.
        self.shape = torch.Size((1, 1, 1, capacity))
        self.rows: list[TapeRow] = []
        self.start_z_axes: list[int] = []
        self.single = False
        self._used = 0

    def vector(self, x: Tensor) -> Vector:
        return x.detach().to(torch.float64).reshape(-1).numpy().copy()

    def basis(self, dtype: torch.dtype = torch.float64) -> Tensor:
        if self._used == self.shape[-1]:
            raise _Full
        fresh = torch.zeros(self.shape, dtype=dtype)
        fresh.view(-1)[self._used] = 1.0
        self._used += 1
        return fresh

    def evaluate(self, x: Tensor, u: Tensor, level: Level) -> Tensor:
        if x.shape != self.shape or u.shape != self.shape:
            raise NotLinear(f"the model was evaluated on shape {tuple(u.shape)}")
        vector, seen = self.vector(x), self.vector(u)
        scale = 1.0 if u is x else _ratio(seen, vector)
        self.rows.append(TapeRow(level, scale, vector, self._used))
        return self.basis()

    def noise(self) -> Tensor:
        return self._draw(torch.float64)

    def _draw(self, dtype: torch.dtype) -> Tensor:
        (self.rows[-1].z_axes if self.rows else self.start_z_axes).append(self._used)
        return self.basis(dtype)

    def _clamp(self, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
        limits = [-np.inf if low is None else float(low), np.inf if high is None else float(high)]
        if not self.rows:
            raise NotLinear("a clamp before the first model evaluation")
        self.rows[-1].clamps.append(TapeClamp(self.vector(x), limits[0], limits[1], self._used))
        return self.basis(x.dtype)

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        handler = _INTERCEPTED.get(func)
        if handler is not None:
            seen = handler(self, *args, **kwargs)
            if seen is not NotImplemented:
                return seen
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.dtype == torch.float32 and result.shape == self.shape:
            self.single = True
        return result


def _on_clamp(tape: _Tape, x: Tensor, min: Any = None, max: Any = None, **_: Any) -> Any:
    # Coefficients are clamped too (a variance, say); only tensors in the shape of a sample live on the axes.
    return tape._clamp(x, min, max) if isinstance(x, Tensor) and x.shape == tape.shape else NotImplemented


def _on_clamp_in_place(tape: _Tape, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    clamped = _on_clamp(tape, x, *args, **kwargs)
    return clamped if clamped is NotImplemented else x.copy_(clamped)


def _on_clamp_min(tape: _Tape, x: Tensor, min: Any) -> Any:
    return _on_clamp(tape, x, min, None)


def _on_clamp_max(tape: _Tape, x: Tensor, max: Any) -> Any:
    return _on_clamp(tape, x, None, max)


def _on_randn_like(tape: _Tape, x: Tensor, **kwargs: Any) -> Any:
    return tape._draw(kwargs.get("dtype") or x.dtype) if x.shape == tape.shape else NotImplemented


def _on_randn(tape: _Tape, *size: Any, **kwargs: Any) -> Any:
    shape = kwargs.get("size", size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
    # The drawn axis is exact in any dtype; float64 keeps what is computed from it so.
    return tape._draw(torch.float64) if torch.Size(shape) == tape.shape else NotImplemented


_INTERCEPTED: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.clamp, torch.clip, Tensor.clamp, Tensor.clip), _on_clamp),
    **dict.fromkeys((Tensor.clamp_, Tensor.clip_, torch.clamp_, torch.clip_), _on_clamp_in_place),
    **dict.fromkeys((torch.clamp_min, Tensor.clamp_min), _on_clamp_min),
    **dict.fromkeys((torch.clamp_max, Tensor.clamp_max), _on_clamp_max),
    torch.randn_like: _on_randn_like,
    torch.randn: _on_randn,
}


def _ratio(scaled: Vector, vector: Vector) -> float:
    scale = float(scaled @ vector / (vector @ vector))
    if not np.allclose(scaled, scale * vector, rtol=1e-6, atol=1e-7 * np.abs(scaled).max()):
        raise NotLinear("scale_model_input does more than scale the sample")
    return scale


def _describe(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
