"""Conditions of several batches as the condition of one."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from diffexp.models.base import Condition

Kind = tuple[Hashable, ...]
"""Batches of equal kind can go into one call of a model."""


def kind_of(u: Tensor, t: Tensor, condition: Condition) -> Kind | None:
    """What must be equal for two batches to be put together; None where that is out of the question.

    Only the positive side counts, the one that a network is given.
    """
    values = [*condition.positive.values(), t]
    if type(condition) is not Condition or not all(
        isinstance(v, Tensor) and v.shape[:1] == u.shape[:1] for v in values
    ):
        return None
    keywords = ((key, value.shape[1:], value.dtype) for key, value in sorted(condition.positive.items()))
    return (u.shape[1:], u.dtype, t.shape[1:], t.dtype, *keywords)


def merge(conditions: Sequence[Condition]) -> Condition:
    """The positive side of batches of one kind, one batch after the other."""
    if len(conditions) == 1:
        return conditions[0]
    keys = conditions[0].positive
    positive = {key: torch.cat([condition.positive[key] for condition in conditions]) for key in keys}
    return Condition(positive, None, [caption for condition in conditions for caption in condition.captions])


def part_of(condition: Condition, start: int, stop: int) -> Condition:
    """The positive side of some of the samples."""
    positive = {key: value[start:stop] for key, value in condition.positive.items()}
    return Condition(positive, None, condition.captions[start:stop])
