"""The probability flow to data with two modes, solved exactly: what a sampler's error is measured against."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffexp.plan.levels import Level, Levels, Schedule
from diffexp.plan.method import Denoiser
from diffexp.plan.predictions import Prediction
from diffexp.plan.training import Training

STD = 0.3


def posterior_mean(x: Tensor, level: Level) -> Tensor:
    """E[x0 | x] where every coordinate is drawn from N(-1, STD^2) or N(1, STD^2)."""
    v = (level.alpha * STD) ** 2 + level.sigma**2
    center = torch.tanh(level.alpha * x / v)
    return center + level.alpha * STD**2 / v * (x - level.alpha * center)


def probability(x: Tensor, level: Level) -> Tensor:
    """P(X < x) at a level."""
    std = math.hypot(level.alpha * STD, level.sigma)
    return torch.special.ndtr((x - level.alpha) / std) / 2 + torch.special.ndtr((x + level.alpha) / std) / 2


def transported(x: Tensor, here: Level, there: Level) -> Tensor:
    """Where the probability-flow ODE takes x: in one dimension it keeps P(X < x)."""
    below = -x.abs()  # in this tail probabilities keep their digits
    wanted, low, high = probability(below, here), torch.full_like(x, -1e3), torch.zeros_like(x)
    for _ in range(80):
        middle = (low + high) / 2
        beyond = probability(middle, there) > wanted
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return -x.sign() * (low + high) / 2


def even_levels(schedule: Schedule, steps: int, high: float = 60.0, low: float = 0.02) -> Levels:
    """Equally spaced in log SNR; the last one is above clean, so that errors have no floor."""
    ratios = [high * (low / high) ** (k / steps) for k in range(steps + 1)]
    return Levels(tuple(schedule.at_ratio(ratio) for ratio in ratios), schedule, 1.0)


def solved(function: Any, levels: Levels, x: Tensor, **options: Any) -> Tensor:
    """What a scheduler function makes of x with the exact model, and without noise."""
    denoiser = Denoiser(lambda x, u, level: posterior_mean(u, level), Training(levels.schedule, Prediction.SAMPLE))
    return function(denoiser, x, levels, lambda: torch.zeros_like(x), **options)


def distance(sampler: Callable[[Tensor], Tensor], levels: Levels) -> float:
    """Root mean square between a sampler's output and the exact solution, over the range of start samples [64]."""
    start = torch.linspace(-2, 2, 64, dtype=torch.float64) * math.hypot(levels[0].alpha, levels[0].sigma)
    return float((sampler(start) - transported(start, levels[0], levels[-1])).square().mean().sqrt())


def error(function: Any, levels: Levels, **options: Any) -> float:
    """The ``distance`` of a scheduler function."""
    return distance(lambda start: solved(function, levels, start, **options), levels)


def order_of(few: float, many: float, ratio: int) -> float:
    """The slope between two errors, the second with ``ratio`` times the steps."""
    return math.log(few / many, ratio)
