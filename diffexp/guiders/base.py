"""The type that guidance takes and returns."""

from collections.abc import Callable

from torch import Tensor

from diffexp.models.base import Condition

Predict = Callable[[Tensor, Tensor, Condition], Tensor]
"""``(u [B, *shape], t [B], condition) -> raw network output [B, *shape]``, as ``Model.predict``."""
