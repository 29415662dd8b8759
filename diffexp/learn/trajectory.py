"""The accurate solution on its way from noise to sample: the states and x0 estimates of the solver that computes it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffexp.experiment.reference import accurate_plan, start_of
from diffexp.learn.coordinates import place
from diffexp.learn.problem import Noises, Problem
from diffexp.plan.execute import execute
from diffexp.plan.levels import Level


@dataclass(frozen=True)
class Trajectory:
    """Solutions at many levels, in the scale z of ``coordinates``."""

    s: Tensor
    """[m], falling: places of the evaluations."""
    z: Tensor
    """[m, B, *shape]."""
    x0: Tensor
    """[m, B, *shape]: estimates there."""
    end: Tensor
    """[B, *shape]: the samples."""

    def at(self, s: float) -> Tensor:
        """z [B, *shape] at a place, by Hermite's cubic between its neighbours; dz/ds = (z - x0) / s."""
        if s <= 0:
            return self.end
        after = int((self.s > s).sum().clamp(1, len(self.s) - 1))
        a, b = self.s[after - 1].item(), self.s[after].item()
        width, t = b - a, (s - a) / (b - a)
        slopes = [(self.z[i] - self.x0[i]) / self.s[i] * width for i in (after - 1, after)]
        t2, t3 = t * t, t * t * t
        return (
            (2 * t3 - 3 * t2 + 1) * self.z[after - 1]
            + (t3 - 2 * t2 + t) * slopes[0]
            + (3 * t2 - 2 * t3) * self.z[after]
            + (t3 - t2) * slopes[1]
        )


@torch.no_grad()
def trajectory(problem: Problem, noises: Noises, rows: Sequence[int]) -> Trajectory:
    """The trajectories of some noises, which take as many evaluations as their solutions did.

    Levels that the solver of the solutions visits twice count once.
    """
    model, part = problem.run.model, noises.batch(rows)
    start = start_of(problem.deterministic_base, model)
    assert start is not None
    plan = accurate_plan(model.training, start)
    seen: dict[float, tuple[Tensor, Tensor]] = {}
    clip = problem.run.model.clip

    def network(u: Tensor, level: Level) -> Tensor:
        m = part.network(u, torch.tensor(level.timestep))
        p, q = model.training.prediction.clean(level)
        x0 = p * u + q * m
        seen[place(level)] = (u / (level.alpha + level.sigma), x0 if clip is None else clip(x0))
        return m

    end = execute(plan, network, part.start * plan.start_std, part.draws)
    places = sorted(seen, reverse=True)
    z, x0 = (torch.stack([seen[s][side] for s in places]) for side in (0, 1))
    return Trajectory(torch.tensor(places, dtype=torch.float64), z, x0, end)
