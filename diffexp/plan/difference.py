"""Whether two tables are the same map, whatever past samples they are written with."""

import math

import torch
from torch import Tensor

from diffexp.plan.execute import History, advance
from diffexp.plan.row import Clamp
from diffexp.plan.table import Plan


def unrolled_difference(one: Plan, other: Plan) -> float:
    """Largest difference between two methods, as ``Plan.difference``, also for methods with a memory.

    Past samples depend on each other linearly, so that one method has many tables over them. Unrolled to the start, the
    outputs, the clamps and the draws, none of which can be made of others, it has only one. Both are compared in the
    scale of the network's input; levels count by their timestep.

    Returns:
        Relative to the larger of 1 and the coefficient; inf for another number of evaluations.
    """
    if one.nfe != other.nfe:
        return math.inf
    shape = [(max(len(a.clamps), len(b.clamps)), max(len(a.z), len(b.z))) for a, b in zip(one.rows, other.rows)]
    draws = max(len(one.start_z), len(other.start_z))
    mine, theirs = _unrolled(one, shape, draws), _unrolled(other, shape, draws)
    scale = torch.maximum(mine.abs(), theirs.abs()).clamp(min=1.0)
    difference = torch.where(mine.isfinite() & theirs.isfinite(), (mine - theirs).abs() / scale, math.inf)
    # Infinite limits of clamps are equal where they are the same.
    difference = torch.where(mine == theirs, 0.0, difference)
    return difference.max().item()


def _unrolled(plan: Plan, shape: list[tuple[int, int]], draws: int) -> Tensor:
    """Inputs of all evaluations and clamps and the output, one line each; a column for every axis."""
    axes = torch.eye(1 + draws + sum(1 + clamps + zs for clamps, zs in shape), dtype=torch.float64)
    used = 1 + draws
    x = plan.start_scale * plan.start_std * axes[0]
    for i, coefficient in enumerate(plan.start_z):
        x = x + coefficient * axes[1 + i]
    lines, history = [], History.empty()
    for row, (clamps, zs) in zip(plan.rows, shape):
        m, fresh = axes[used], iter(axes[used + 1 + clamps : used + 1 + clamps + zs])
        lines.append(torch.cat([torch.tensor([row.level.timestep, 0.0, 0.0]), row.scale * x]))
        for clamp in [*row.clamps, *[Clamp(0.0, 0.0, 0.0, 0.0)] * (clamps - len(row.clamps))]:
            limits = torch.tensor([0.0, clamp.low, clamp.high])
            lines.append(torch.cat([limits, clamp.x * x + clamp.m * m]))
        history.push(x, m, list(axes[used + 1 : used + 1 + len(row.clamps)]), plan.depth)
        x = advance(row, history, lambda fresh=fresh: next(fresh))
        used += 1 + clamps + zs
    return torch.stack([*lines, torch.cat([torch.zeros(3), x])])
