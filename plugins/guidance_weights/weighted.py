"""Guidance with weights that grow or fall from noise to sample."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from diffexp import Condition, Model, Predict, both_sides, guidance, per_sample

SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda s: 2 * s,
    "cosine": lambda s: 1 - torch.cos(math.pi * s),
    "inverse_linear": lambda s: 2 * (1 - s),
    "sine": lambda s: 1 + torch.cos(math.pi * s),
    "v": lambda s: 2 * (1 - 2 * s).abs(),
    "lambda": lambda s: 2 - 2 * (1 - 2 * s).abs(),
}
"""The weight at s, from 0 (noise) to 1 (sample), in units of the constant weight with the same mean, which is 1."""


@guidance
def weighted(
    predict: Predict,
    scale: float,
    model: Model,
    *,
    shape: Literal["linear", "cosine", "inverse_linear", "sine", "v", "lambda"] = "linear",
) -> Predict:
    """``m_pos + w(t) * (m_pos - m_neg)``, with weights w(t) of mean scale - 1 (Wang et al. 2024, arXiv:2404.13040).

    The paper finds that weights that grow towards the sample (linear, cosine) beat a constant one.

    Args:
        shape: linear and cosine grow, inverse_linear and sine fall, v is least and lambda is greatest in the middle of
            the model's timesteps.
    """
    if scale <= 1:
        return predict
    weight, (clean, noise) = SHAPES[shape], model.schedule.timestep_range
    sides = both_sides(predict)

    def guided(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if condition.negative is None:
            return predict(u, t, condition)
        negative, positive = sides(u, t, condition)
        scales = 1 + (scale - 1) * weight((noise - t) / (noise - clean))
        return torch.lerp(negative, positive, per_sample(scales.to(u.dtype), u))

    return guided
