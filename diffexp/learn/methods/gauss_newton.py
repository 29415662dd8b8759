"""All numbers of the table, by the curvature of the squared error: no gradient of the network is needed."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffexp.learn.batches import Batches
from diffexp.learn.fit import Curve, Descent
from diffexp.learn.losses import SMALLEST, averaged, residuals_of, score_of
from diffexp.learn.problem import Problem
from diffexp.learn.rollout import rollout
from diffexp.learn.table import LEVELS, REMAINDERS, SCALES, SHIFTS, WEIGHTS, FreeNumber, Table

GROUPS = (LEVELS, SHIFTS, SCALES, WEIGHTS, REMAINDERS)
MEMORY = 0.5
"""Share of the curvature that is from earlier iterations."""
FIRST_DAMPING, LAST_DAMPING = 0.3, 1e-3
"""Of Levenberg and Marquardt, relative to each number's own curvature; the first falls by this factor an iteration."""
LONGEST, LONGEST_REMAINDER = 0.7, 2.0
"""The largest change of a number in an iteration; weights of what clipping removed, which is little, may be larger."""
HARDER = (1.0, 30.0, 1000.0)
"""Times the damping: of the first attempt at a step, and of those after one that made the loss of its batch larger."""
LAST_STEP = 0.08
"""The last step as a share of the whole one; they fall along half a cosine, which averages over batches."""


def gauss_newton(problem: Problem, folder: Path | None, curve: Curve) -> tuple[Table, bool]:
    """The numbers of ``endpoint`` by the Gauss-Newton method with the damping of Levenberg (1944) and Marquardt (1963).

    A table has few numbers (of a model that clips 38 at 5 evaluations, 128 at 10), whose effects on the samples are far
    from independent. Derivatives of the samples in each of them are differences, of which each evaluates the network
    only from where the number matters on. A dozen iterations do what takes gradient descent hundreds.
    """
    table = problem.table()
    iterations = problem.settings.iterations
    method = GaussNewton(problem, table)
    score = score_of(problem, curve)
    descent = Descent(table, method, lambda: score(table), iterations, curve, folder)
    descent.run()
    return table, descent.interrupted


class GaussNewton:
    """Iterations on batches of noises; the curvature is a running mean over them."""

    def __init__(self, problem: Problem, table: Table) -> None:
        self.problem, self.table = problem, table
        self.batches, self.residuals = Batches(problem, table), residuals_of(problem)
        self.numbers = table.free_numbers(GROUPS)
        self.width = difference_of(problem.run.model.dtype)
        self.curvature: Tensor | None = None

    @torch.no_grad()
    def step(self, iteration: int) -> float:
        settings, of_batch = self.problem.settings, self._of_batch(iteration)
        residuals, slopes = self._linearised(of_batch)
        squares = residuals.square().mean(dim=1)
        before = averaged(squares, settings).item()
        if settings.log:  # the logarithm weighs each mean square by its inverse
            residuals, slopes = (part / (squares + SMALLEST).sqrt()[:, None] for part in (residuals, slopes))
        else:
            residuals, slopes = (part / squares.mean().sqrt() for part in (residuals, slopes))
        slopes = slopes.flatten(1)
        curvature, gradient = slopes @ slopes.T / residuals.numel(), slopes @ residuals.flatten() / residuals.numel()
        known = self.curvature
        self.curvature = curvature if known is None else MEMORY * known + (1 - MEMORY) * curvature
        usual = FIRST_DAMPING ** (iteration + 1) + LAST_DAMPING
        share = _share(iteration, settings.iterations)
        known = [getattr(self.table, number.group)[number.place].item() for number in self.numbers]
        for harder in HARDER:
            self._set(known, self._change(gradient, usual * harder) * share)
            if averaged(of_batch([]).square().mean(dim=1), settings).item() < before:
                break
        else:
            self._set(known, torch.zeros(len(known)))
        return before

    def _change(self, gradient: Tensor, damping: float) -> Tensor:
        """The change of the numbers [numbers] that the curvature suggests, with damping relative to it."""
        assert self.curvature is not None
        damped = self.curvature + torch.diag(self.curvature.diagonal() * damping + 1e-6)
        change = -torch.linalg.solve(damped, gradient)
        longest = torch.tensor([LONGEST_REMAINDER if one.group == REMAINDERS else LONGEST for one in self.numbers])
        change *= min(1.0, 1 / (change.abs() / longest).max().clamp(min=1e-12).item())
        return change.nan_to_num(0.0)

    def _set(self, known: Sequence[float], change: Tensor) -> None:
        for number, value, by in zip(self.numbers, known, change.tolist()):
            getattr(self.table, number.group).data[number.place] = value + by

    def _of_batch(self, iteration: int) -> Callable[[list[Tensor]], Tensor]:
        """Residuals [R, d] on the batch of an iteration, float64 on the CPU, from the estimates known so far."""
        part = self.batches(iteration)
        draws = [] if self.table.deterministic else [part.draws() for _ in range(self.table.nfe - 1)]

        def residuals(known: list[Tensor]) -> Tensor:
            noise = iter(draws)
            x = rollout(self.table, part.network, part.start, lambda: next(noise), estimates=known)
            return self.residuals(x, part.truth).double().cpu()

        return residuals

    def _linearised(self, of_batch: Callable[[list[Tensor]], Tensor]) -> tuple[Tensor, Tensor]:
        """Residuals [R, d] of a batch, and their derivatives [numbers, R, d]."""
        estimates: list[Tensor] = []
        here, slopes = of_batch(estimates), []
        for number in self.numbers:
            self._move(number, self.width)
            slopes.append((of_batch(estimates[: number.first]) - here) / self.width)
            self._move(number, -self.width)
        return here, torch.stack(slopes)

    def _move(self, number: FreeNumber, by: float) -> None:
        getattr(self.table, number.group).data[number.place] += by

    def state(self) -> dict[str, Any]:
        return {"curvature": self.curvature}

    def load(self, state: Mapping[str, Any]) -> None:
        self.curvature = state["curvature"]


def difference_of(dtype: torch.dtype) -> float:
    """The width of differences for a network of this precision: small, but large beside its rounding."""
    return min(0.04, 10 * torch.finfo(dtype).eps ** 0.5)


def _share(iteration: int, iterations: int) -> float:
    """The step of an iteration as a share of the whole one."""
    return LAST_STEP + (1 - LAST_STEP) * 0.5 * (1 + math.cos(math.pi * iteration / iterations))
