"""Which noises an iteration learns from."""

import torch

from diffexp.learn.problem import Noises, Problem
from diffexp.learn.table import Table


class Batches:
    """The noises of each iteration: all of them in a new order, part after part; the same in every attempt.

    Where noise of the steps is to be annealed, it is that of the iteration in the table afterwards.
    """

    def __init__(self, problem: Problem, table: Table) -> None:
        self.settings, self.noises, self.table = problem.settings, problem.train, table
        self.size = min(self.settings.batch, len(self.noises.start))
        self.shares = table.shares.clone()

    def __call__(self, iteration: int) -> Noises:
        if self.settings.noise == "annealed":
            self.table.shares.copy_(self.shares * max(0.0, 1 - 2 * iteration / self.settings.iterations))
        count = len(self.noises.start)
        parts = max(1, count // self.size)
        generator = torch.Generator().manual_seed(iteration // parts)
        order = torch.randperm(count, generator=generator).tolist()
        first = iteration % parts * self.size
        return self.noises.batch(order[first : first + self.size])
