"""Guidance where it helps, and none of its cost elsewhere."""

import torch
from torch import Tensor

from diffexp import guidance
from diffexp.guiders.base import Predict
from diffexp.guiders.cfg import cfg
from diffexp.models.base import Condition


@guidance
def limited(predict: Predict, scale: float, *, low: float = 82.0, high: float = 579.0) -> Predict:
    """Classifier-free guidance at low < timestep <= high only (Kynkäänniemi et al. 2024, arXiv:2404.07724, eq. 5).

    The paper finds that guidance costs variety at high noise and does nothing at low noise; outside of the interval the
    model is asked once and not twice. On DDPM's linear betas the default is its interval for SDXL, (0.28, 5.42] in
    sigma / alpha.

    Args:
        low, high: ends of the interval, in timesteps as the network is told them.
    """
    guided = cfg(predict, scale)

    def limited(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        inside = (t > low) & (t <= high)
        if inside.all():
            return guided(u, t, condition)
        if not inside.any():
            return predict(u, t, condition)
        # Rows at different noise levels, as in loop=paradigms.
        inside = inside.view(-1, *[1] * (u.ndim - 1))
        return torch.where(inside, guided(u, t, condition), predict(u, t, condition))

    return limited
