"""Running a plan: a few fused tensor operations a step, no state, no host syncs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from diffexp.plan.levels import Level
from diffexp.plan.method import Noise
from diffexp.plan.row import Row
from diffexp.plan.table import Plan

Network = Callable[[Tensor, Level], Tensor]
"""One evaluation: what the network sees and where, to its raw output in the same shape."""


@dataclass(slots=True)
class History:
    """Past samples, outputs and clamp results, newest first, no longer than the plan needs."""

    x: list[Tensor]
    m: list[Tensor]
    d: list[Sequence[Tensor]]

    @classmethod
    def empty(cls) -> "History":
        return cls([], [], [])

    def push(self, x: Tensor, m: Tensor, d: Sequence[Tensor], depth: int) -> None:
        self.x = [x, *self.x[:depth]]
        self.m = [m, *self.m[:depth]]
        self.d = [d, *self.d[:depth]]


def clamped(row: Row, x: Tensor, m: Tensor) -> list[Tensor]:
    """The row's clamp results d_k."""
    return [weighted(((c.x, x), (c.m, m))).clamp_(c.low, c.high) for c in row.clamps]


def weighted(terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Sum of coefficient * tensor in fresh memory; zero coefficients cost nothing."""
    total: Tensor | None = None
    for coefficient, tensor in terms:
        if coefficient == 0.0:
            continue
        if total is None:
            total = tensor * coefficient
        else:
            total.add_(tensor, alpha=coefficient)
    return terms[0][1] * 0.0 if total is None else total


def advance(row: Row, history: History, noise: Noise) -> Tensor:
    """x_{k+1} from a history whose newest entries are x_k, m_k and d_k."""
    terms = [*zip(row.x, history.x), *zip(row.m, history.m)]
    for coefficients, tensors in zip(row.d, history.d):
        terms += zip(coefficients, tensors)
    # A draw is taken even for a coefficient of 0, so that streams stay aligned with the scheduler's own.
    terms += [(coefficient, noise()) for coefficient in row.z]
    return weighted(terms)


def begin(plan: Plan, start: Tensor, noise: Noise) -> Tensor:
    """x_0 from the start sample."""
    if plan.start_scale == 1.0 and not plan.start_z:
        return start
    return weighted([(plan.start_scale, start), *((c, noise()) for c in plan.start_z)])


Step = Callable[[Tensor, Tensor, Noise], Tensor]
"""(x_k, m_k, noise) to x_{k+1}."""


def fused_step(row: Row) -> Step | None:
    """A row without history as two to five in-place operations, or None where it needs the general path."""
    if row.depth or len(row.clamps) > 1:
        return None
    a, b, draws = next(iter(row.x), 0.0), next(iter(row.m), 0.0), row.z
    weight = next((c for past in row.d for c in past), 0.0)
    if not weight:
        return None if row.clamps else partial(_linear_step, a, b, draws)
    clamp = next(iter(row.clamps))
    # weight * clamp(d, low, high) = clamp(weight * d, weight * low, weight * high) saves one pass over memory.
    low, high = sorted((weight * clamp.low, weight * clamp.high))
    return partial(_clamped_step, weight * clamp.x, weight * clamp.m, low, high, a, b, draws)


def _linear_step(a: float, b: float, draws: Sequence[float], x: Tensor, m: Tensor, noise: Noise) -> Tensor:
    out = torch.mul(x, a)
    out.add_(m, alpha=b)
    for coefficient in draws:
        out.add_(noise(), alpha=coefficient)
    return out


def _clamped_step(
    p: float,
    q: float,
    low: float,
    high: float,
    a: float,
    b: float,
    draws: Sequence[float],
    x: Tensor,
    m: Tensor,
    noise: Noise,
) -> Tensor:
    out = torch.mul(x, p)
    out.add_(m, alpha=q).clamp_(low, high)
    if a:
        out.add_(x, alpha=a)
    if b:
        out.add_(m, alpha=b)
    for coefficient in draws:
        out.add_(noise(), alpha=coefficient)
    return out


def execute(plan: Plan, network: Network, start: Tensor, noise: Noise) -> Tensor:
    """Run all rows from ``start`` (``start_std`` times standard normal noise, [batch, *shape]) to the output.

    Nothing is written to ``start``. ``noise`` is called once per draw, in order.
    """
    x = begin(plan, start, noise)
    history, depth = History.empty(), plan.depth
    for row in plan.rows:
        m = network(x if row.scale == 1.0 else x * row.scale, row.level)
        fused = None if depth else fused_step(row)
        if fused is not None:
            x = fused(x, m, noise)
            continue
        history.push(x, m, clamped(row, x, m), depth)
        x = advance(row, history, noise)
    return x
