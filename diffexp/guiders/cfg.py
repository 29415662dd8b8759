"""Classifier-free guidance."""

from functools import lru_cache

import torch
from torch import Tensor

from diffexp.guiders.base import Predict
from diffexp.models.base import Condition
from diffexp.registry import guidance


@guidance
def cfg(predict: Predict, scale: float) -> Predict:
    """``m_neg + scale * (m_pos - m_neg)`` (Ho & Salimans 2022, eq. 6, with scale = 1 + w), in one batched call.

    At scale 1, or for a model without a negative condition, it is the model's own prediction at its own cost;
    scale 0 is the negative prediction, above 1 is the usual range (2 to 8). The batch the network sees is doubled.
    """
    if scale == 1:
        return predict
    # A run asks with the same condition at every step; only the first of them builds the doubled tensors.
    doubled = lru_cache(maxsize=1)(_double)

    def guided(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if condition.negative is None:
            return predict(u, t, condition)
        negative, positive = predict(torch.cat([u, u]), torch.cat([t, t]), doubled(condition)).chunk(2)
        return torch.lerp(negative, positive, scale)

    return guided


def _double(condition: Condition) -> Condition:
    assert condition.negative is not None
    both = {key: torch.cat([condition.negative[key], value]) for key, value in condition.positive.items()}
    return Condition(positive=both, negative=None, captions=condition.captions * 2)
