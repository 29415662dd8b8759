"""All numbers of the table, by their gradient through the network at the end of the trajectory."""

from pathlib import Path

import torch

from diffexp.learn.batches import Batches
from diffexp.learn.fit import Adam, Curve, Descent
from diffexp.learn.losses import averaged, residuals_of, score_of
from diffexp.learn.problem import Problem
from diffexp.learn.table import LEVELS, REMAINDERS, SCALES, SHIFTS, WEIGHTS, Table

RATES = {LEVELS: 1.0, SHIFTS: 1.0, SCALES: 0.2, WEIGHTS: 0.5, REMAINDERS: 0.5}
"""Times the learning rate: a weight of 1 is a whole step, a shift of 1 a factor e of the noise."""


def endpoint(problem: Problem, folder: Path | None, curve: Curve) -> tuple[Table, bool]:
    """Levels, timesteps, input scales and weights together: S4S (Frankel et al. 2025, arXiv:2502.17423), BNS (Shaul et
    al. 2024, arXiv:2403.01329), GS (Oganov et al. 2025, arXiv:2510.17699).

    These differ in what they leave free and in the loss. Here the table has full depth, as in BNS; levels and what
    the network gets for them are free separately, as in S4S and LD3; it starts from a hand-made solver, as in GS.
    """
    return descend(problem, problem.table(), tuple(RATES), folder, curve)


def descend(
    problem: Problem, table: Table, free: tuple[str, ...], folder: Path | None, curve: Curve
) -> tuple[Table, bool]:
    """Descend on the parameters ``free`` of a table; returns it at its best, and whether it was interrupted."""
    settings, residuals = problem.settings, residuals_of(problem)
    problem.check_gradient()
    batches = Batches(problem, table)

    def of_iteration(iteration: int) -> torch.Tensor:
        part = batches(iteration)
        return averaged(residuals(problem.samples(table, part), part.truth).square().mean(dim=1), settings)

    rates = {name: settings.learning_rate * RATES[name] for name in free}
    method = Adam(table, rates, of_iteration, settings.iterations)
    score = score_of(problem, curve)
    descent = Descent(table, method, lambda: score(table), settings.iterations, curve, folder)
    descent.run()
    return table, descent.interrupted
