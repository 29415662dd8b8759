"""Exact statements about a plan: no sampling, no weights."""

import torch
from torch import Tensor

from diffexp.errors import InputError
from diffexp.levels import Level
from diffexp.plan.plan import Plan
from diffexp.predictions import Prediction


def gaussian_output(
    plan: Plan, mean: Tensor, variances: Tensor, prediction: Prediction = Prediction.EPSILON
) -> tuple[Tensor, Tensor]:
    """Mean and variances of a plan's output on Gaussian data with the optimal denoiser.

    The optimal denoiser of N(mean, diag(variances)) is linear, so each coordinate of the output is a fixed
    combination of the start noise and the draws (Pierret & Galerne, ICML 2025, section 3).

    Args:
        mean, variances: of the data in the eigenbasis of its covariance, each [d].
        prediction: what the network's output stands for.

    Returns:
        mean and variances of the output in the same basis, each [d], float64.

    Raises:
        InputError: the plan clamps, so its output is not Gaussian.
    """
    if any(row.clamps for row in plan.rows):
        raise InputError(f"{plan.name} clips its x0 estimate: its output on Gaussian data is not Gaussian")
    mean, variances = mean.double(), variances.double()
    # Columns: the start noise, every later draw, and the constant 1.
    x = torch.zeros(len(mean), plan.draws + 2, dtype=torch.float64)
    x[:, 0] = plan.start_scale * plan.start_std
    used = 1
    for coefficient in plan.start_z:
        x[:, used] += coefficient
        used += 1
    xs: list[Tensor] = []
    ms: list[Tensor] = []
    for row in plan.rows:
        xs.insert(0, x)
        ms.insert(0, _optimal_output(x * row.scale, row.level, mean, variances, prediction))
        x = torch.zeros_like(x)
        for coefficient, past in [*zip(row.x, xs), *zip(row.m, ms)]:
            x = x + coefficient * past
        for coefficient in row.z:
            x[:, used] += coefficient
            used += 1
    return x[:, -1], x[:, :-1].square().sum(dim=1)


def _optimal_output(u: Tensor, level: Level, mean: Tensor, variances: Tensor, prediction: Prediction) -> Tensor:
    """The network's output as a combination of the same columns as ``u``."""
    alpha, sigma = level.alpha, level.sigma
    gain = alpha * variances / (alpha**2 * variances + sigma**2)
    x0 = gain.unsqueeze(1) * u
    x0[:, -1] += mean - gain * alpha * mean
    eps = (u - alpha * x0) / sigma
    match prediction:
        case Prediction.EPSILON:
            return eps
        case Prediction.SAMPLE:
            return x0
        case Prediction.V:
            return alpha * eps - sigma * x0
        case Prediction.FLOW:
            return eps - x0
