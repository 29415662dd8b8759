"""Noise levels as numbers that can be learned, for any schedule and prediction.

Samples are carried in the scale ``z = x / (alpha + sigma) = (1 - s) x0 + s eps``, the straight path of flow matching.
``s`` in (0, 1] is finite at every level of every schedule, pure noise and zero terminal SNR included.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffexp.plan.levels import CLEAN, Level, Levels
from diffexp.plan.training import Training

STEP = 1e-4
"""In log(sigma / alpha), of the central differences that stand for derivatives of a schedule."""


@dataclass(frozen=True)
class Facts:
    """What an evaluation at a level is computed with; 0-dimensional tensors, differentiable in the level."""

    scale: Tensor
    """The network sees scale * z."""
    p: Tensor
    q: Tensor
    """x0 = p * u + q * m for the network's input u and output m."""


def facts(training: Training, logs: Tensor) -> list[Facts]:
    """The facts at each log(sigma / alpha) of ``logs`` [n]; inf is pure noise."""
    found = _Smooth.apply(logs, lambda log: _facts(training, log))
    return [Facts(*row) for row in found.unbind()]


def timesteps(training: Training, logs: Tensor) -> Tensor:
    """The timestep that the network is given for each log(sigma / alpha) of ``logs`` [n], in the training's range."""
    return _Smooth.apply(logs, lambda log: (_timestep(training, log),))[:, 0]


def seen_level(training: Training, log: float) -> Level:
    """The level at a log(sigma / alpha), in the scale of the network's input."""
    level = training.schedule.at_ratio(_exp(log))
    return level.scaled(training.schedule.input_scale(level))


def log_ratio(s: Tensor) -> Tensor:
    """log(sigma / alpha) of places s on the straight path; inf at s = 1."""
    return torch.logit(s)


def levels_at(training: Training, places: Sequence[float], start_std: float | None = None) -> Levels:
    """The levels at these places and the clean end, for a solver; the start is as noisy as the first, or as given."""
    inputs = [seen_level(training, log) for log in log_ratio(torch.tensor(places, dtype=torch.float64)).tolist()]
    points = [level.scaled(1 / training.schedule.input_scale(level)) for level in inputs]
    return Levels((*points, CLEAN), training.schedule, points[0].sigma if start_std is None else start_std)


def place(level: Level) -> float:
    """s of a level at any scale of x."""
    return level.sigma / (level.alpha + level.sigma)


def _timestep(training: Training, log: float) -> float:
    low, high = training.schedule.timestep_range
    return min(max(training.schedule.at_ratio(_exp(log)).timestep, low), high)


def _facts(training: Training, log: float) -> tuple[float, float, float]:
    level = seen_level(training, log)
    return level.alpha + level.sigma, *training.prediction.clean(level)


def _exp(log: float) -> float:
    return math.exp(log) if log < 700 else math.inf


class _Smooth(torch.autograd.Function):
    """A function of one number, applied to each, with derivatives by central differences.

    Schedules and predictions, those of plugins too, are formulas of floats. Where the number is infinite there is none.
    """

    @staticmethod
    def forward(ctx, logs, function):
        points = logs.detach().double().tolist()
        values = torch.tensor([function(point) for point in points], dtype=torch.float64)
        moved = [
            [(b - a) / (2 * STEP) for a, b in zip(function(point - STEP), function(point + STEP))]
            if math.isfinite(point)
            else [0.0] * values.shape[1]
            for point in points
        ]
        ctx.save_for_backward(torch.tensor(moved, dtype=torch.float64))
        return values.to(logs.device)

    @staticmethod
    def backward(ctx, *grad_outputs):
        (slopes,) = ctx.saved_tensors
        return (grad_outputs[0] * slopes.to(grad_outputs[0].device)).sum(dim=1), None
