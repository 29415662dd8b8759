"""Conditions of several batches as the condition of one."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from diffexp.models.base import Condition

Kind = tuple[Hashable, ...]
"""Batches of equal kind can go into one call of a model."""


def kind_of(u: Tensor, t: Tensor, condition: Condition) -> Kind | None:
    """What must be equal for two batches to be put together; None where that is out of the question."""
    sides = [condition.positive, *([] if condition.negative is None else [condition.negative])]
    values = list(chain.from_iterable(side.values() for side in sides))
    rows = [*values, t]
    if type(condition) is not Condition or not all(isinstance(v, Tensor) and v.shape[:1] == u.shape[:1] for v in rows):
        return None
    return (u.shape[1:], u.dtype, t.shape[1:], t.dtype, condition.negative is None, *map(_kind_of_side, sides))


def _kind_of_side(tensors: Mapping[str, Tensor]) -> Kind:
    return tuple((key, value.shape[1:], value.dtype) for key, value in sorted(tensors.items()))


def merge(conditions: Sequence[Condition]) -> Condition:
    """Conditions of batches of one kind, one batch after the other."""
    if len(conditions) == 1:
        return conditions[0]
    first = conditions[0]
    positive = {key: torch.cat([c.positive[key] for c in conditions]) for key in first.positive}
    negative = None
    if first.negative is not None:
        negative = {key: torch.cat([(c.negative or {})[key] for c in conditions]) for key in first.negative}
    return Condition(positive, negative, [caption for c in conditions for caption in c.captions])


def part_of(condition: Condition, start: int, stop: int) -> Condition:
    """The condition of some of the samples."""

    def part(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: value[start:stop] for key, value in tensors.items()}

    negative = None if condition.negative is None else part(condition.negative)
    return Condition(part(condition.positive), negative, condition.captions[start:stop])
