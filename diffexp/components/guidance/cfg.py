"""Classifier-free guidance."""

import torch
from torch import Tensor

from diffexp import guidance
from diffexp.components.guidance.base import Predict, both_sides
from diffexp.components.models.base import Condition
from diffexp.errors import InputError


@guidance
def cfg(predict: Predict, scale: float, *, rescale: float = 0.0) -> Predict:
    """``m_neg + scale * (m_pos - m_neg)`` (Ho & Salimans 2022, eq. 6, with scale = 1 + w), in one batched call.

    At scale 1 or below, or for a model without a negative condition, it is the model's own prediction at its own cost,
    as in the pipelines of diffusers (distilled models are told 0). The usual range is 2 to 8. The batch that the
    network sees is doubled.

    Args:
        rescale: how much of the spread that guidance adds is taken back, in [0, 1]: see ``rescaled``. 0.7 is usual.

    Raises:
        InputError: ``rescale`` is outside of [0, 1].
    """
    if not 0 <= rescale <= 1:
        raise InputError(f"guidance.rescale={rescale:g} must be from 0 to 1")
    if scale <= 1:
        return predict
    sides = both_sides(predict)

    def guided(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if condition.negative is None:
            return predict(u, t, condition)
        negative, positive = sides(u, t, condition)
        combined = torch.lerp(negative, positive, scale)
        return rescaled(combined, positive, rescale) if rescale else combined

    return guided


def rescaled(guided: Tensor, positive: Tensor, share: float) -> Tensor:
    """``guided`` [B, *shape] with a standard deviation nearer to that of ``positive``, sample by sample.

    Lin et al. 2023 (arXiv:2305.08891), eqs. 15 and 16, on the network's raw output: against the overexposure that
    large scales bring. ``share`` 1 gives it the very deviation of ``positive``, 0 leaves it as it is.
    """
    axes = tuple(range(1, guided.ndim))
    ratio = positive.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return guided * (1 + share * (ratio - 1))
