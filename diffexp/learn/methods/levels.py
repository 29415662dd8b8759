"""Levels and the timesteps that the network gets by gradient, through a solver that stays what it is."""

from pathlib import Path

import torch
from torch import Tensor

from diffexp.errors import InputError
from diffexp.learn.fit import Curve
from diffexp.learn.methods.endpoint import descend
from diffexp.learn.methods.grid import on_places
from diffexp.learn.problem import Problem
from diffexp.learn.table import LEVELS, SHIFTS, Table

STEP = 1e-3
"""In the free numbers of the levels, of the differences that stand for derivatives of the solver's weights."""


def levels(problem: Problem, folder: Path | None, curve: Curve) -> tuple[Table, bool]:
    """LD3 (Tong et al. 2025, arXiv:2405.15506): levels of the steps, and timesteps for the network.

    The weights are at every iteration those that the run's own scheduler has on these levels. Any scheduler without
    noise will do: its code is compiled on the levels, and beside them for the gradient.
    """
    table = SolverTable.of(problem)
    _, interrupted = descend(problem, table, (LEVELS, SHIFTS), folder, curve)
    return table.plain(), interrupted


class SolverTable(Table):
    """A table whose weights are those of a scheduler on the table's levels."""

    problem: Problem

    @classmethod
    def of(cls, problem: Problem) -> "SolverTable":
        """The table of the run's scheduler."""
        start = problem.table()
        if not start.deterministic:
            raise InputError("method=levels is for schedulers that draw no noise")
        ratios = torch.sigmoid(start.levels).tolist()
        weights, shifts = start.mixing().detach().numpy(), start.shifts.tolist()
        made = cls(start.training_of_model, start.first, start.start_std, ratios, shifts, weights)
        made.problem = problem
        return made

    def mixing(self) -> Tensor:
        return _Weights.apply(self.levels, self.weights_on)

    def weights_on(self, free: Tensor) -> Tensor:
        """The scheduler's weights [nfe, nfe] on the levels that free numbers give."""
        s = self.first * torch.cumprod(torch.sigmoid(free.double()), dim=0)
        return on_places(self.problem, [self.first, *s.tolist()]).mixing().detach()

    def plain(self) -> Table:
        """The same table with its weights as free numbers."""
        ratios = torch.sigmoid(self.levels).tolist()
        weights = self.weights_on(self.levels.detach()).numpy()
        return Table(self.training_of_model, self.first, self.start_std, ratios, self.shifts.tolist(), weights)


class _Weights(torch.autograd.Function):
    """The weights of a scheduler as a function of its levels, with derivatives by differences."""

    @staticmethod
    def forward(ctx, free, weights_on):
        here = weights_on(free.detach())
        ctx.save_for_backward(free.detach(), here)
        ctx.weights_on = weights_on
        return here

    @staticmethod
    def backward(ctx, *grad_outputs):
        free, here = ctx.saved_tensors
        slopes = []
        for k in range(len(free)):
            moved = free.clone()
            moved[k] += STEP
            slopes.append(((ctx.weights_on(moved) - here) / STEP * grad_outputs[0]).sum())
        return torch.stack(slopes), None
