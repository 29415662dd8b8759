"""Tracing: a scheduler runs on basis vectors, and its sample after each step is that step's row."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffexp.plan.basis import Basis, Full, Intercepted, Vector, vector
from diffexp.plan.levels import Level
from diffexp.plan.method import Method


class NotLinear(Exception):
    """The scheduler is not a table: its output is not a linear function of samples, outputs, clamps and noise."""


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

    @property
    def not_finite(self) -> int | None:
        """The first evaluation whose input, clamps or update has coefficients that are not finite; None without one."""
        updates = [*(row.x for row in self.rows[1:]), self.output]
        for index, (row, update) in enumerate(zip(self.rows, updates)):
            vectors = (row.x, np.array(row.scale), update, *(clamp.vector for clamp in row.clamps))
            if not all(np.isfinite(one).all() for one in vectors):
                return index
        return None


def record(method: Method) -> Recording:
    """Trace a method.

    Raises:
        NotLinear: an operation on a sample that no table can express.
    """
    capacity = 4 * method.nfe + 32  # room for a start, and an output, a clamp and two draws a step
    while True:
        try:
            return _record(method, capacity)
        except Full:
            capacity *= 4


def _record(method: Method, capacity: int) -> Recording:
    tape = _Tape(Basis(capacity))
    with tape:
        output = method(tape.evaluate, tape.basis.fresh(), tape.noise)
    if not isinstance(output, Tensor) or output.shape != tape.shape:
        raise NotLinear(f"{method.name} returned {_describe(output)} instead of a sample")
    return Recording(tape.rows, tape.start_z_axes, vector(output), tape.single)


class _Tape(Intercepted):
    """Provider of basis vectors: for the start, and for every output, clamp and draw of noise."""

    def __init__(self, basis: Basis) -> None:
        super().__init__(basis.shape)
        self.basis = basis
        self.rows: list[TapeRow] = []
        self.start_z_axes: list[int] = []
        self.single = False

    def evaluate(self, x: Tensor, u: Tensor, level: Level) -> Tensor:
        if x.shape != self.shape or u.shape != self.shape:
            raise NotLinear(f"the model was evaluated on shape {tuple(u.shape)}")
        here, seen = vector(x), vector(u)
        scale = 1.0 if u is x else ratio(seen, here)
        self.rows.append(TapeRow(level, scale, here, self.basis.used))
        return self.basis.fresh()

    def noise(self) -> Tensor:
        return self.drawn(None, None)

    def drawn(self, dtype: torch.dtype | None, device: Any) -> Tensor:
        (self.rows[-1].z_axes if self.rows else self.start_z_axes).append(self.basis.used)
        # The drawn axis is exact in any dtype; float64 keeps what is computed from it so.
        return self.basis.fresh()

    def clamped(self, x: Tensor, low: Any, high: Any) -> Tensor:
        limits = [-np.inf if low is None else float(low), np.inf if high is None else float(high)]
        if not self.rows:
            raise NotLinear("a clamp before the first model evaluation")
        self.rows[-1].clamps.append(TapeClamp(vector(x), limits[0], limits[1], self.basis.used))
        return self.basis.fresh(x.dtype)

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        if isinstance(result, Tensor) and result.dtype == torch.float32 and result.shape == self.shape:
            self.single = True
        return result


def ratio(scaled: Vector, plain: Vector) -> float:
    if not np.isfinite(plain).all():
        return np.nan
    scale = float(scaled @ plain / (plain @ plain))
    if not np.allclose(scaled, scale * plain, rtol=1e-6, atol=1e-7 * np.abs(scaled).max()):
        raise NotLinear("scale_model_input does more than scale the sample")
    return scale


def _describe(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
