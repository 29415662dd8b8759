"""Steps of a scheduler function as formulas of the samples that a caller hands in.

A compiled plan runs from its own outputs, and its rows are short because of that. A caller may edit latents between
steps. So here the function is traced once more: the variable that it evaluates the network on becomes an axis of its
own, in place, so that what the function computes from it later is computed from the sample that was handed in.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from torch import Tensor

from diffexp.plan.basis import Basis, Full, vector
from diffexp.plan.formulas import Clamped, Drawn, Formula, Place, Sum, Tape
from diffexp.plan.levels import Level
from diffexp.plan.method import Denoiser, Method, drives_object
from diffexp.plan.table import Plan
from diffexp.plan.trace import NotLinear, ratio

ROUNDING = 1e-13
"""Coefficients below this part of a formula's largest one are what is left where terms cancel."""
MOST_KEPT = 8
"""Tensors that are kept one by one; where later steps read more (UniPC's corrector does), combinations of them are."""
RANK = 1e-11
"""Relative size of singular values that are rounding."""
KEPT = "kept"


def formulas_of(plan: Plan) -> Sequence[Formula] | None:
    """One formula a row, of (sample, output, *kept): the next sample, and under ``KEPT`` what the next row gets.

    None where the rows already are that, or where they are all that is known: of finished plans, and of functions that
    evaluate the network on something else than a variable of theirs, which an edit of it would not change.
    """
    if plan.source is None or drives_object(plan.source) or not plan.depth:
        return None
    try:
        steps = _traced(plan.source, plan.nfe)
        return _formulas(steps, plan) if len(steps) == plan.nfe else None
    except (NotLinear, RuntimeError):  # RuntimeError: a variable that torch cannot write to
        return None


@dataclass(frozen=True)
class _Step:
    """From one evaluation up to the next; sums are over axes: the sample, the output, and then ``made`` in order."""

    axis: int
    """Of the sample."""
    scale: float
    """The network sees scale * sample."""
    made: tuple[Clamped | Drawn, ...]
    next: Sum
    """The sample that it ends with."""

    @property
    def sums(self) -> list[Sum]:
        """Those of its clamps, and its next sample."""
        return [*(one.sum for one in self.made if isinstance(one, Clamped)), self.next]

    @property
    def ends_with_estimate(self) -> bool:
        """Whether the next sample is an output of the network, a clamp or noise as it is."""
        return any(self.next.terms == ((axis, 1.0),) for axis in range(self.axis + 1, self.axis + 2 + len(self.made)))


def _traced(method: Method, nfe: int) -> list[_Step]:
    axes = 5 * nfe + 32  # room for a start, and a sample, an output, a clamp and two draws a step
    while True:
        tape = _HandedIn(Basis(axes))
        try:
            with tape:
                output = method(tape.evaluate, tape.basis.fresh(), tape.noise)
            tape.end_step(output)
            return tape.steps
        except Full:
            axes *= 4


class _HandedIn(Tape):
    """Records the steps of a function, each from a sample of its own."""

    def __init__(self, basis: Basis) -> None:
        super().__init__(basis)
        self.steps: list[_Step] = []

    def evaluate(self, x: Tensor, u: Tensor, level: Level) -> Tensor:
        if not _is_variable(x):
            raise NotLinear("the network is evaluated on something else than a variable of the function")
        scale = 1.0 if u is x else ratio(vector(u), vector(x))
        self.end_step(x)
        if self.steps and self.steps[-1].ends_with_estimate:
            raise NotLinear("the sample may be the same tensor as an estimate that the function goes on with")
        self.steps.append(_Step(self.basis.used, scale, (), Sum(())))
        x.copy_(self.basis.fresh())
        return self.basis.fresh()

    def noise(self) -> Tensor:
        return self.drawn(None, None)

    def end_step(self, x: Tensor) -> None:
        """The step that is running, if there is one, ends with this sample."""
        if self.steps:
            self.steps[-1] = replace(self.steps[-1], made=tuple(self.made), next=self.sum(x))
        self.made = []

    def sum(self, x: Tensor) -> Sum:
        found = vector(x)
        if not np.isfinite(found).all():
            raise NotLinear("coefficients are not finite")
        return _sum(found)


def _is_variable(x: Tensor) -> bool:
    """Whether code that calls the ``Denoiser`` has a local variable that is this tensor."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code is not _traced.__code__:
        names = frame.f_locals
        if not isinstance(names.get("self"), Denoiser) and any(value is x for value in names.values()):
            return True
        frame = frame.f_back
    return False


def _formulas(steps: Sequence[_Step], plan: Plan) -> list[Formula]:
    """The steps over places, each with what later ones read of it and of what was before it.

    Raises:
        NotLinear: a step reads what came before the first evaluation.
    """
    owner, table = _coefficients(steps, scaled=plan.is_unscaled)
    if table[:, : steps[0].axis].any():
        raise NotLinear("a step reads what came before the first evaluation")
    found, of_kept = [], np.zeros((len(table), 0))
    for k, step in enumerate(steps):
        # As in the rows of a plan without noise that counts, none is drawn.
        made = {a: one for a, one in enumerate(step.made, step.axis + 2) if plan.draws or isinstance(one, Clamped)}
        places = np.concatenate([table[:, step.axis : step.axis + 2], of_kept, table[:, [*made]]], axis=1)
        sums = map(_sum, places[owner == k])
        values = tuple(replace(one, sum=next(sums)) if isinstance(one, Clamped) else one for one in made.values())
        basis = _basis(places[owner > k])
        after = {KEPT: [Place(index) for index in range(len(basis))]}
        found.append(Formula(values, next(sums), tuple(map(_sum, basis)), None, after))
        of_kept = places @ basis.T
    return found


def _coefficients(steps: Sequence[_Step], *, scaled: bool) -> tuple[np.ndarray, np.ndarray]:
    """For every sum, in order, the step it belongs to and its coefficients [sums, axes].

    Args:
        steps: of these sums.
        scaled: whether samples are handed in and returned as the network sees them.
    """
    units = [step.scale if scaled else 1.0 for step in steps] + [1.0]
    owner = np.array([k for k, step in enumerate(steps) for _ in step.sums])
    table = np.zeros((len(owner), steps[-1].axis + 2 + len(steps[-1].made)))
    for row, one in zip(table, chain.from_iterable(step.sums for step in steps)):
        for axis, c in one.terms:
            row[axis] = c
    table[:, [step.axis for step in steps]] /= units[:-1]
    table[np.searchsorted(owner, range(len(steps)), side="right") - 1] *= np.array(units[1:])[:, None]
    return owner, table


def _basis(rows: np.ndarray) -> np.ndarray:
    """Orthonormal vectors [kept, places] that span rows: unit vectors if these are few."""
    used = np.flatnonzero(rows.any(axis=0))
    if len(used) <= MOST_KEPT:
        return np.eye(rows.shape[1])[used]
    rows = rows[rows.any(axis=1)]
    _, sizes, vectors = np.linalg.svd(rows / np.abs(rows).max(axis=1, keepdims=True), full_matrices=False)
    return vectors[sizes > RANK * sizes[0]]


def _sum(coefficients: np.ndarray) -> Sum:
    size = np.abs(coefficients)
    return Sum(tuple((int(i), float(coefficients[i])) for i in np.flatnonzero(size > ROUNDING * size.max())))
