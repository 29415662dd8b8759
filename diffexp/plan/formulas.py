"""Steps of a scheduler object as formulas of what it is handed, what it draws and what it keeps between calls.

A compiled plan runs from its own outputs. Pipelines also blend latents between steps, begin in the middle, or pass
keywords to ``step``. So here every call is traced by itself: the sample, the network's output and each tensor that the
object keeps are axes, whatever they hold. A call is traced once for every state of the object, tensors aside.
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
class Place:
    """Stands for a kept tensor: which of them it is."""

    index: int


@dataclass(frozen=True)
class Formula:
    """One call of ``step``, over the sample, the output, what is kept, what is given, and then ``made`` in order."""

    made: tuple[Clamped | Drawn, ...]
    returned: Any
    """What ``step`` returns, with a ``Sum`` for every tensor in the shape of the sample."""
    kept: tuple[Sum, ...]
    before: Any
    after: dict[str, Any]
    """Attributes of the object, with a ``Place`` for every tensor that is kept."""

    def __call__(self, tensors: Sequence[Tensor], draw: Draw) -> tuple[Any, dict[str, Any]]:
        """What ``step`` returns, and the attributes of the object after it."""
        values = list(tensors)
        for one in self.made:
            made = one.sum.of(values).clamp_(one.low, one.high) if isinstance(one, Clamped) else draw(one.dtype)
            values.append(made)
        returned = pytree.tree_map_only(Sum, lambda leaf: leaf.of(values), self.returned)
        return returned, _put(self.after, [leaf.kept_of(values) for leaf in self.kept])


class Formulas:
    """The formulas of a scheduler object, found as they are needed."""

    def __init__(self) -> None:
        self._known: dict[Any, Formula] = {}

    def step(self, scheduler: Any, m: Tensor, timestep: Any, x: Tensor, options: Mapping[str, Any], draw: Draw) -> Any:
        """What ``scheduler.step(m, timestep, x, **options)`` returns, and changes in the object.

        Options that are tensors in the shape of the sample may be any; others are part of the formula.
        """
        given = {name: value for name, value in options.items() if _has_shape(value, x.shape)}
        plain = {name: value for name, value in options.items() if name not in given}
        kept: dict[int, Tensor] = {}
        before = _taken(vars(scheduler), x.shape, kept)
        call = (_identity(timestep), *given, *((name, _identity(value)) for name, value in plain.items()))
        leaves, structure = pytree.tree_flatten(before)
        key = call, structure, *(_identity(leaf, id(leaf)) for leaf in leaves)
        if key not in self._known:
            self._known[key] = _trace(scheduler, before, len(kept), timestep, plain, list(given))
        tensors = [x, m, *kept.values(), *given.values()]
        returned, after = self._known[key](tensors, draw)
        scheduler.__dict__ = after
        return returned


def _trace(
    scheduler: Any, before: dict[str, Any], count: int, timestep: Any, options: Mapping[str, Any], given: Sequence[str]
) -> Formula:
    tape = Tape(Basis(32 + count + len(given)))
    while True:
        try:
            x, m, *kept = (tape.basis.fresh() for _ in range(2 + count))
            scheduler = copy.copy(scheduler)
            scheduler.__dict__ = _put(before, kept)
            with tape:
                returned = scheduler.step(m, timestep, x, **options, **{name: tape.basis.fresh() for name in given})
            break
        except Full:
            tape = Tape(Basis(4 * tape.shape[-1]))
    if not isinstance(returned, Tensor | tuple | Mapping):  # an object of a class that diffusers does not know
        returned = returned.prev_sample
    returned = pytree.tree_map(lambda leaf: tape.sum(leaf) if _has_shape(leaf, tape.shape) else leaf, returned)
    places: dict[Sum, Place] = {}

    def take(leaf: Any) -> Any:
        return places.setdefault(tape.sum(leaf), Place(len(places))) if _has_shape(leaf, tape.shape) else leaf

    after = pytree.tree_map(take, vars(scheduler))
    return Formula(tuple(tape.made), returned, tuple(places), before, after)


class Tape(Intercepted):
    """Records clamps and draws of one call."""

    def __init__(self, basis: Basis) -> None:
        super().__init__(basis.shape)
        self.basis = basis
        self.made: list[Clamped | Drawn] = []

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


def _has_shape(leaf: Any, shape: torch.Size) -> bool:
    return isinstance(leaf, Tensor) and leaf.shape == shape


def _taken(attributes: dict[str, Any], shape: torch.Size, kept: dict[int, Tensor]) -> dict[str, Any]:
    """The attributes with a ``Place`` for every tensor of this shape; these are put into ``kept``, each once."""
    places: dict[int, Place] = {}

    def take(leaf: Any) -> Any:
        if not _has_shape(leaf, shape):
            return leaf
        kept.setdefault(id(leaf), leaf)
        return places.setdefault(id(leaf), Place(len(places)))

    return pytree.tree_map(take, attributes)


def _put(attributes: dict[str, Any], tensors: Sequence[Tensor]) -> dict[str, Any]:
    """The attributes with tensors for every ``Place``; lists and dicts among them are new ones."""
    return pytree.tree_map(lambda leaf: tensors[leaf.index] if isinstance(leaf, Place) else leaf, attributes)


def _identity(value: Any, otherwise: Any = None) -> Any:
    """The identity of a value: of a number and the like what it is; of everything else nothing, by default."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.dtype, value.shape, value.item()
    if isinstance(value, bool | int | float | str | None | Place | torch.dtype):
        return type(value), value
    return object() if otherwise is None else otherwise
