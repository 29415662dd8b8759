"""All numbers of the table, by their gradient through the network at the end of the trajectory."""

from pathlib import Path

import torch

from diffexp.learn.fit import Curve, Descent
from diffexp.learn.losses import loss_of
from diffexp.learn.problem import Problem
from diffexp.learn.table import LEVELS, TOLD, WEIGHTS, Table

RATES = {LEVELS: 1.0, TOLD: 1.0, WEIGHTS: 0.5}
"""Times the learning rate: a weight of 1 is a whole step, a shift of 1 a factor e of the noise."""


def endpoint(problem: Problem, folder: Path | None, curve: Curve) -> tuple[Table, bool]:
    """Levels, told timesteps and weights together: S4S (Frankel et al. 2025, arXiv:2502.17423), BNS (Shaul et al.
    2024, arXiv:2403.01329), GS (Oganov et al. 2025, arXiv:2510.17699).

    These differ in what they leave free and in the loss. Here the table has full depth, as in BNS; levels and what
    the network gets for them are free separately, as in S4S and LD3; it starts from a hand-made solver, as in GS.
    """
    return descend(problem, problem.table(), tuple(RATES), folder, curve)


def descend(
    problem: Problem, table: Table, free: tuple[str, ...], folder: Path | None, curve: Curve
) -> tuple[Table, bool]:
    """Descend on the parameters ``free`` of a table; returns it at its best, and whether it was interrupted."""
    settings, loss, noises = problem.settings, loss_of(problem), problem.train
    problem.check_gradient()
    size = min(settings.batch, len(noises.start))
    shares = table.shares.clone()

    def of_iteration(iteration: int) -> torch.Tensor:
        if settings.noise == "annealed":
            table.shares.copy_(shares * max(0.0, 1 - 2 * iteration / settings.iterations))
        generator = torch.Generator().manual_seed(iteration // _batches(noises.start, size))
        order = torch.randperm(len(noises.start), generator=generator).tolist()
        first = iteration % _batches(noises.start, size) * size
        part = noises.batch(order[first : first + size])
        return loss(problem.samples(table, part), part.truth)

    rates = {name: settings.learning_rate * RATES[name] for name in free}
    descent = Descent(table, rates, of_iteration, lambda: problem.score(table), settings.iterations, curve, folder)
    descent.run()
    return table, descent.interrupted


def _batches(start: torch.Tensor, size: int) -> int:
    return max(1, len(start) // size)
