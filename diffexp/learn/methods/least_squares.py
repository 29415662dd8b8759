"""The weights alone, in closed form step by step."""

import math
from pathlib import Path

import torch

from diffexp.learn.fit import Curve
from diffexp.learn.problem import Problem
from diffexp.learn.rollout import clamped, combined, estimate_x0
from diffexp.learn.table import Table
from diffexp.learn.trajectory import trajectory

RIDGE = 1e-3
"""Weight of the distance from the hand-made weights, relative to the mean square of what they multiply."""


@torch.no_grad()
def least_squares(problem: Problem, folder: Path | None, curve: Curve) -> tuple[Table, bool]:
    """At each step the weights that bring the table's own samples closest to the accurate solution at the next level.

    OLSS (Duan et al. 2023, arXiv:2305.14677) finds coefficients by such a regression. Here it is on the trajectory that
    the table itself makes, so that each step also corrects the errors of those before it.
    """
    table, noises = problem.table(), problem.train
    table.remainders.zero_()
    curve.points.append({"iteration": 0, "loss": math.nan, "score": problem.score(table), "seconds": 0.0})
    truth = trajectory(problem, noises, range(len(noises.start)))
    s = table.places()
    found, timesteps = table.evaluations(s)
    kappa, c, _ = table.steps(s)
    mixing = table.mixing()
    z, estimates = noises.start * (table.start_std / found[0].scale.item()), list[torch.Tensor]()
    for k in range(table.nfe):
        parts = [
            clamped(estimate_x0(table, part.network, some, found[k], timesteps[k]), table.clip)
            for part, some in zip(noises.batches(_size(problem)), z.split(_size(problem)))
        ]
        estimates.append(torch.cat(parts))
        if k:
            target = (truth.at(s[k + 1].item()) - kappa[k].to(z.device) * z) / c[k].item()
            mixing[k, : k + 1] = _weights(target, estimates, mixing[k, : k + 1])
            table.weights[k, :k] = mixing[k, :k]
        z = combined(kappa[k], z, c[k] * mixing[k, : k + 1], estimates)
    curve.points.append({"iteration": table.nfe, "loss": math.nan, "score": problem.score(table), "seconds": 0.0})
    return table, False


def _weights(target: torch.Tensor, estimates: list[torch.Tensor], usual: torch.Tensor) -> torch.Tensor:
    """Weights that sum to 1 and bring the mean of the estimates closest to the target; ``usual`` where in doubt."""
    newest = estimates[-1].double().flatten()
    columns = torch.stack([one.double().flatten() - newest for one in estimates[:-1]], dim=1)
    usual = usual[:-1]
    rest = target.double().flatten() - newest - columns @ usual
    gram = columns.T @ columns
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    older = usual + torch.linalg.solve(gram + ridge, columns.T @ rest)
    return torch.cat([older, 1 - older.sum()[None]])


def _size(problem: Problem) -> int:
    return int(problem.config["batch_size"])
