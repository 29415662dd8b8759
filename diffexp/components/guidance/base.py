"""Types and helpers that guidances share."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from diffexp.components.models.base import Condition

Predict = Callable[[Tensor, Tensor, Condition], Tensor]
"""``(u [B, *shape], t [B], condition) -> raw network output [B, *shape]``, as ``Model.predict``."""

Sides = Callable[[Tensor, Tensor, Condition], tuple[Tensor, Tensor]]
"""The same arguments to (negative, positive), both [B, *shape]."""


def both_sides(predict: Predict) -> Sides:
    """Predictions of the network for both sides of a condition, in one call of twice the batch."""
    # A batch has the same condition at every step; the doubled tensors are built once.
    doubled = lru_cache(maxsize=1)(_double)

    def sides(u: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        negative, positive = predict(torch.cat([u, u]), torch.cat([t, t]), doubled(condition)).chunk(2)
        return negative, positive

    return sides


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) to [B, 1, ..., 1], to broadcast against ``like`` [B, *shape]."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _double(condition: Condition) -> Condition:
    assert condition.negative is not None
    both = {key: torch.cat([condition.negative[key], value]) for key, value in condition.positive.items()}
    return Condition(positive=both, negative=None, captions=condition.captions * 2)
