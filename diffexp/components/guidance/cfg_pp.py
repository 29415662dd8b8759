"""CFG++, guidance that stays on the data manifold."""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from diffexp import guidance
from diffexp.components.guidance.base import Predict, both_sides, per_sample
from diffexp.components.models.base import Condition
from diffexp.errors import InputError
from diffexp.plan.levels import Level


@guidance
def cfg_pp(predict: Predict, scale: float, levels: Sequence[Level]) -> Predict:
    """CFG++ (Chung et al. 2024, arXiv:2406.08070, algorithm 2): x0 from the guided noise, noised by the unguided one.

    A step of DDIM from sigma / alpha = r to s that adds the noise of the negative side equals one of classifier-free
    guidance with ``scale * r / (r - s)``. This scale is used for every solver, as if each evaluation were followed by a
    step of DDIM to the next level. ``guidance_scale`` is the paper's lambda, from 0 to 1; 0.6 corresponds to 7.5 of
    ``cfg``.

    Raises:
        InputError: the scale is outside of [0, 1].
    """
    if not 0 <= scale <= 1:
        raise InputError(f"guidance=cfg_pp takes a guidance_scale from 0 to 1, such as 0.6, not {scale:g}")
    sides = both_sides(predict)
    visited = sorted({level.timestep: level.ratio for level in levels}.items())
    ratios = [0.0, *(ratio for _, ratio in visited)]
    growth = [above / (above - below) if below < above < math.inf else 1.0 for below, above in pairwise(ratios)]

    @lru_cache(maxsize=1)  # a copy from the host at every evaluation would synchronise the device
    def table(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        timesteps = torch.tensor([t for t, _ in visited], device=device, dtype=dtype)
        return timesteps, scale * torch.tensor(growth, device=device, dtype=dtype)

    def guided(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if condition.negative is None:
            return predict(u, t, condition)
        negative, positive = sides(u, t, condition)
        timesteps, weights = table(t.device, t.dtype)
        # The largest visited timestep not above t, up to rounding.
        place = torch.bucketize(t + 1e-6 * t.abs().clamp_min(1), timesteps, right=True).sub(1).clamp_min(0)
        return torch.lerp(negative, positive, per_sample(weights[place].to(negative.dtype), u))

    return guided
