"""Steps of a scheduler object as formulas of what it is handed, what it draws and what it keeps between calls.

A compiled plan runs from its own outputs. Pipelines also blend latents between steps, begin in the middle, or pass
keywords to ``step``. So here every call is traced by itself: the sample, the network's output and each tensor that the
object keeps are axes, whatever they hold. The same call in the same state is traced once.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from diffexp.plan.basis import Basis, Full, Intercepted, vector
from diffexp.plan.execute import weighted

Draw = Callable[[torch.dtype | None], Tensor]
"""Fresh standard normal noise; None is the dtype of the network's output."""


@dataclass(frozen=True)
class Sum:
    """A linear combination: (place of a tensor, coefficient) for each."""

    terms: tuple[tuple[int, float], ...]

    def of(self, tensors: Sequence[Tensor]) -> Tensor:
        """The combination in fresh memory."""
        return weighted([(c, tensors[i]) for i, c in self.terms] or [(0.0, tensors[0])])

    def kept_of(self, tensors: Sequence[Tensor]) -> Tensor:
        """The combination; one tensor by itself is not copied, as the object would not."""
        return tensors[self.terms[0][0]] if len(self.terms) == 1 and self.terms[0][1] == 1.0 else self.of(tensors)


@dataclass(frozen=True)
class Clamped:
    """clamp(combination, low, high)."""

    sum: Sum
    low: float
    high: float


@dataclass(frozen=True)
class Drawn:
    """A draw of noise in this dtype; None is that of the network's output."""

    dtype: torch.dtype | None


@dataclass(frozen=True)
class Kept:
    """Where a kept tensor stands among all of them."""

    place: int


@dataclass(frozen=True)
class Formula:
    """One call of ``step``. Places: the sample, the output, what is kept, what is given, then ``made`` in order."""

    made: tuple[Clamped | Drawn, ...]
    returned: Any
    """What ``step`` returns, with a ``Sum`` for every tensor in the shape of the sample."""
    kept: tuple[Sum, ...]

    def __call__(self, tensors: Sequence[Tensor], draw: Draw) -> tuple[Any, list[Tensor]]:
        """What ``step`` returns, and the tensors that are kept."""
        values = list(tensors)
        for one in self.made:
            made = one.sum.of(values).clamp_(one.low, one.high) if isinstance(one, Clamped) else draw(one.dtype)
            values.append(made)
        returned = pytree.tree_map_only(Sum, lambda leaf: leaf.of(values), self.returned)
        return returned, [leaf.kept_of(values) for leaf in self.kept]


class State:
    """A scheduler object between two calls, with ``Kept`` in place of the tensors in the shape of a sample.

    Args:
        scheduler: the object, not changed here.
        known: all states by what tells them apart.
    """

    def __init__(self, scheduler: Any, known: "dict[Any, State] | None" = None) -> None:
        self.scheduler = scheduler
        self._known = {} if known is None else known
        self._traced: dict[Any, Any] = {}

    @property
    def count(self) -> int:
        """Number of tensors that are kept."""
        places = [leaf.place for leaf in pytree.tree_leaves(vars(self.scheduler)) if isinstance(leaf, Kept)]
        return max(places, default=-1) + 1

    def holding(self, tensors: Sequence[Tensor]) -> Any:
        """A copy of the object that keeps these tensors."""
        return _changed(self.scheduler, lambda leaf: tensors[leaf.place] if isinstance(leaf, Kept) else leaf)

    def step(self, timestep: Any, options: Mapping[str, Any], shape: torch.Size) -> "tuple[Formula, State]":
        """The formula of ``step``, and the state after it.

        Args:
            timestep: as the caller gives it.
            options: keywords of ``step``; tensors in the shape of the sample are given in the order of their names.
            shape: of the sample.
        """
        given = {name for name, value in options.items() if isinstance(value, Tensor) and value.shape == shape}
        plain = {name: value for name, value in sorted(options.items()) if name not in given}
        key = (_identity(timestep), *sorted(given), *((name, _identity(value)) for name, value in plain.items()))
        return self._once(key, lambda: self._trace(timestep, plain, sorted(given)))

    def scale(self, timestep: Any) -> "tuple[float, State]":
        """The factor of ``scale_model_input``, and the state after it."""
        if not hasattr(self.scheduler, "scale_model_input"):
            return 1.0, self
        return self._once(("scale", _identity(timestep)), lambda: self._trace_scale(timestep))

    def beginning(self, index: int) -> "State":
        """The state after ``set_begin_index``."""
        scheduler = _changed(self.scheduler, lambda leaf: leaf)
        scheduler.set_begin_index(index)
        return self._next(scheduler)

    def _once(self, key: Any, trace: Callable[[], Any]) -> Any:
        if key not in self._traced:
            self._traced[key] = trace()
        return self._traced[key]

    def _trace(self, timestep: Any, options: Mapping[str, Any], given: Sequence[str]) -> "tuple[Formula, State]":
        axes = 32 + self.count + len(given)
        while True:
            try:
                return self._traced_on(_Tape(Basis(axes)), timestep, options, given)
            except Full:
                axes *= 4

    def _traced_on(
        self, tape: "_Tape", timestep: Any, options: Mapping[str, Any], given: Sequence[str]
    ) -> "tuple[Formula, State]":
        x, m, *kept = (tape.basis.fresh() for _ in range(2 + self.count))
        scheduler = self.holding(kept)
        with tape:
            returned = scheduler.step(m, timestep, x, **options, **{name: tape.basis.fresh() for name in given})
        sums: dict[Sum, Kept] = {}

        def keep(leaf: Any) -> Any:
            return sums.setdefault(tape.sum(leaf), Kept(len(sums))) if tape.holds(leaf) else leaf

        if not isinstance(returned, Tensor | tuple | Mapping):  # an object of a class that diffusers does not know
            returned = returned.prev_sample
        returned = pytree.tree_map(lambda leaf: tape.sum(leaf) if tape.holds(leaf) else leaf, returned)
        after = self._next(_changed(scheduler, keep))
        return Formula(tuple(tape.made), returned, tuple(sums)), after

    def _trace_scale(self, timestep: Any) -> "tuple[float, State]":
        basis = Basis(1 + self.count)
        x, *kept = (basis.fresh() for _ in range(1 + self.count))
        scheduler = self.holding(kept)
        factor = float(vector(scheduler.scale_model_input(x, timestep))[0])

        def keep(leaf: Any) -> Any:
            return Kept(int(vector(leaf).argmax()) - 1) if _in(leaf, basis.shape) else leaf

        return factor, self._next(_changed(scheduler, keep))

    def _next(self, scheduler: Any) -> "State":
        return self._known.setdefault(_identity_of(scheduler), State(scheduler, self._known))


class _Tape(Intercepted):
    """Records clamps and draws of one call."""

    def __init__(self, basis: Basis) -> None:
        super().__init__(basis.shape)
        self.basis = basis
        self.made: list[Clamped | Drawn] = []

    def holds(self, leaf: Any) -> bool:
        return _in(leaf, self.shape)

    def sum(self, x: Tensor) -> Sum:
        coefficients = vector(x)
        return Sum(tuple((int(i), float(coefficients[i])) for i in np.flatnonzero(coefficients)))

    def drawn(self, dtype: torch.dtype | None, device: Any) -> Tensor:
        self.made.append(Drawn(None if dtype == torch.float64 else dtype))
        return self.basis.fresh(dtype or torch.float64)

    def clamped(self, x: Tensor, low: Any, high: Any) -> Tensor:
        limits = [-np.inf if low is None else float(low), np.inf if high is None else float(high)]
        self.made.append(Clamped(self.sum(x), *limits))
        return self.basis.fresh(x.dtype)


def _in(leaf: Any, shape: torch.Size) -> bool:
    return isinstance(leaf, Tensor) and leaf.shape == shape


def _changed(scheduler: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of an object with other values in its attributes and in the lists and dicts that these are."""
    found = copy.copy(scheduler)
    found.__dict__ = pytree.tree_map(change, vars(scheduler))
    return found


def _identity_of(scheduler: Any) -> Any:
    leaves, structure = pytree.tree_flatten(vars(scheduler))
    return structure, *(_identity(leaf, id(leaf)) for leaf in leaves)


def _identity(value: Any, otherwise: Any = None) -> Any:
    """What tells a value apart: of a number and the like what it is; of everything else nothing, by default."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.dtype, value.shape, value.item()
    if isinstance(value, bool | int | float | str | None | Kept | torch.dtype):
        return type(value), value
    return object() if otherwise is None else otherwise
