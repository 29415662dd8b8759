"""Classifier-free guidance."""

import torch
from torch import Tensor

from diffexp import guidance
from diffexp.components.guidance.base import Predict, both_sides
from diffexp.components.models.base import Condition
from diffexp.errors import InputError


@guidance(pipelines=True)
def cfg(predict: Predict, scale: float, *, rescale: float = 0.0) -> Predict:
    """``m_neg + scale * (m_pos - m_neg)`` (Ho & Salimans 2022, eq. 6, with scale = 1 + w), in one batched call.

    At scale 1 or below, or for a model without a negative condition, it is the model's own prediction at its own cost,
    as in the pipelines of diffusers (distilled models get scale 0). The usual range is 2 to 8. The batch size of the
    network is doubled.

    Args:
        rescale: share of the added standard deviation to remove, in [0, 1]; see ``rescaled``. 0.7 is usual.

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
    """Scale ``guided`` [B, *shape] towards the standard deviation of ``positive``, sample by sample.

    Lin et al. 2023 (arXiv:2305.08891), eqs. 15 and 16, on the network's raw output: against the overexposure of
    large scales. At ``share`` 1 the deviation is that of ``positive``, at 0 it is unchanged. A sample without deviation
    (one number, or the same everywhere up to rounding) is left as it is.
    """
    axes = tuple(range(1, guided.ndim))
    wanted, spread = (one.std(dim=axes, keepdim=True, correction=0) for one in (positive, guided))
    rounding = 4 * torch.finfo(guided.dtype).eps * guided.mean(dim=axes, keepdim=True).abs()
    ratio = torch.where(spread > rounding, wanted / spread, 1.0)
    return guided * (1 + share * (ratio - 1))
