"""The levels alone, by dynamic programming over the accurate trajectory."""

import math
from pathlib import Path

import torch
from torch import Tensor

from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import bind
from diffexp.learn.coordinates import levels_at
from diffexp.learn.fit import Curve
from diffexp.learn.problem import Problem
from diffexp.learn.table import Table, table_of
from diffexp.learn.trajectory import Trajectory, trajectory
from diffexp.plan.compile import compile_method

SAMPLES = 16
"""Trajectories that are measured."""


def grid(problem: Problem, folder: Path | None, curve: Curve) -> tuple[Table, bool]:
    """Of the accurate solver's levels, those whose steps are the most accurate: GITS (Chen et al. 2024,
    arXiv:2405.11326) and OSS (Pei et al. 2025, arXiv:2503.21774).

    A step's error is measured on the accurate trajectory itself, so that no further evaluation is needed. Here it is
    that of a step with two estimates, on this level and on the one before; the scheduler is then bound to the levels.
    """
    steps = problem.base.nfe
    found = trajectory(problem, problem.train, range(min(SAMPLES, len(problem.train.start))))
    places = [found.s[i].item() for i in best_path(pair_errors(found), steps)]
    table = on_places(problem, places)
    for number, one in enumerate((problem.table(), table)):
        curve.points.append({"iteration": number, "loss": math.nan, "score": problem.score(one), "seconds": 0.0})
    return table, False


def on_places(problem: Problem, places: list[float]) -> Table:
    """The table of the run's scheduler on the levels at these places and the clean end."""
    training, recipe = problem.run.model.training, problem.run.recipe
    made = Grid("learned", lambda schedule, steps: levels_at(training, places))
    method = bind(recipe.scheduler, steps=len(places), training=training, grid=made, options=recipe.options)
    return table_of(compile_method(method), training)


def pair_errors(found: Trajectory) -> Tensor:
    """Root mean square errors [m, m, m + 1] of the step from level i to j after h; the last j is the clean end.

    The first step, which has no level before, is at h = i; steps that do not go down are infinite.
    """
    m = len(found.s)
    states = torch.cat([found.z, found.end[None]]).double().flatten(1)
    known = torch.cat([states, found.x0.double().flatten(1)])
    products = known @ known.T / known.shape[1]
    s = torch.cat([found.s, found.s.new_zeros(1)])
    lam = -torch.logit(found.s)
    errors = torch.full((m, m, m + 1), math.inf, dtype=torch.float64)
    for h in range(m):
        for i in range(h, m):
            kappa = s[i + 1 :] / s[i]
            c = 1 - kappa
            length = torch.cat([lam[i + 1 :] - lam[i], lam.new_full((1,), math.inf)])
            usual = h < i and math.isfinite(lam[h].item())
            slope = length / (2 * (lam[i] - lam[h])) if usual else torch.zeros_like(length)
            slope = torch.where(length.isinf(), 0.0, slope)
            weights = torch.zeros(len(kappa), len(known), dtype=torch.float64)
            rows = torch.arange(len(kappa))
            weights[:, i] += kappa
            weights[rows, i + 1 + rows] -= 1
            weights[:, m + 1 + i] += c * (1 + slope)
            weights[:, m + 1 + h] -= c * slope
            errors[h, i, i + 1 :] = ((weights @ products) * weights).sum(dim=1).clamp(min=0).sqrt()
    return errors


def best_path(errors: Tensor, steps: int) -> list[int]:
    """The ``steps`` levels from the first one on whose errors [m, m, m + 1] sum to the least."""
    m = errors.shape[0]
    cost = torch.full((m, m + 1), math.inf, dtype=torch.float64)  # of the last two levels
    cost[0, 1:] = errors[0, 0, 1:]
    back: list[Tensor] = []
    for _ in range(steps - 1):
        total = cost[:, :m, None] + errors  # [h, i, j]
        least, chosen = total.min(dim=0)
        back.append(chosen)
        cost = least
    i, j = int(cost[:, m].argmin()), m
    path = [i]
    for chosen in reversed(back):
        i, j = int(chosen[i, j]), i
        path.append(i)
    return path[::-1]
