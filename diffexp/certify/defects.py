"""Closed-form errors of a method on one data point and on coupled Gaussians."""

import math
from dataclasses import dataclass

import torch

from diffexp.plan.levels import Level
from diffexp.plan.moments import Response


@dataclass(frozen=True)
class Defect:
    """Error of the network's input at one evaluation, for data that is a single point x0.

    There every level is alpha * x0 + sigma * eps with an eps that never changes, which all common methods reproduce up
    to rounding: a defect at one evaluation is a wrong coefficient in the update before it.
    """

    level: Level
    """Level of the evaluation, or the end of the run."""
    signal: float
    """(coefficient of x0 - alpha) / sigma; at the end the plain difference to 1."""
    spread: float
    """Standard deviation of the noise over sigma, minus 1; at the end the standard deviation itself."""

    @property
    def size(self) -> float:
        """The larger of both; inf where one is not finite."""
        worst = max(abs(self.signal), abs(self.spread))
        return worst if math.isfinite(self.signal + self.spread) else math.inf


def point_defects(response: Response, end: Level) -> list[Defect]:
    """Return the defects of a response to data whose first element is ``POINT``: of every evaluation and the output."""
    defects = []
    for level, sample in [*response.seen, (end, response.output)]:
        mean, std = sample.moments.mean[0].item(), math.sqrt(sample.moments.variances[0].item())
        sigma = level.sigma
        if sigma:
            defects.append(Defect(level, (mean - level.alpha) / sigma, std / sigma - 1))
        else:
            defects.append(Defect(level, mean - level.alpha, std))
    return defects


def coupled_distance(coarse: Response, fine: Response, on_point: Response) -> float:
    """Return the root mean square distance between two runs on nested levels, driven by the same Brownian path.

    Both samples are taken at the last evaluation. The noise that the coarse run draws in a step is the sum of those
    that the fine run draws in its two steps there, weighted as they count on point data, to variance 1.

    Args:
        coarse, fine: responses to the same data, with n and 2n - 1 evaluations and at most a draw after each.
        on_point: the fine run's response to ``POINT``.

    Returns:
        the distance per coordinate, >= 0.
    """
    a, b = coarse.seen[-1][1].columns, fine.seen[-1][1].columns
    kept = [a[:, :1] - b[:, :1], a[:, -1:] - b[:, -1:]]
    for k in range(len(coarse.seen) - 1):
        own = range(coarse.drawn[k], coarse.drawn[k + 1])
        theirs = range(fine.drawn[2 * k], fine.drawn[2 * k + 2])
        weights = on_point.seen[2 * k + 2][1].columns[0, [1 + i for i in theirs]]
        weights = weights / weights.norm().clamp(min=1e-300)  # a draw may count for nothing
        coefficient = a[:, 1 + own[0] : 2 + own[0]] if own else torch.zeros_like(a[:, :1])
        kept.append(coefficient * weights - b[:, [1 + i for i in theirs]])
    return torch.cat(kept, dim=1).square().sum(dim=1).mean().sqrt().item()
