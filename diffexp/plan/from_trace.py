"""Rows from traced vectors: each is rewritten over the shortest history that reproduces it."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from diffexp.plan.row import Clamp, Row
from diffexp.plan.table import Plan
from diffexp.plan.trace import NotLinear, Recording, TapeRow, Vector

MAX_DEPTH = 6
"""Rows an update may look back and read all of them; fourth-order multistep methods with a corrector need five."""
MAX_TERMS = 16
"""Outputs that an update may read from any depth; PNDM reads up to twelve after its Runge-Kutta start."""


def build_plan(recording: Recording, name: str, start_std: float) -> Plan:
    """The plan of a recording.

    Raises:
        NotLinear: an update is no combination of the last ``MAX_DEPTH`` samples, outputs and clamps, nor of one sample
            and ``MAX_TERMS`` outputs and clamps.
    """
    tolerance = 3e-6 if recording.single else 1e-12
    samples = [row.x for row in recording.rows] + [recording.output]
    rows = tuple(
        _row(recording.rows[: k + 1], samples[: k + 1], samples[k + 1], tolerance) for k in range(len(recording.rows))
    )
    if not rows:
        raise NotLinear("the model was never evaluated")
    first = samples[0]
    start_z = tuple(float(first[axis]) for axis in recording.start_z_axes)
    plan = Plan(rows, start_std, float(first[0]), start_z, name)
    return plan if _uses_noise(plan) else _without_draws(plan)


def _uses_noise(plan: Plan) -> bool:
    return any(plan.start_z) or any(any(row.z) for row in plan.rows)


def _without_draws(plan: Plan) -> Plan:
    """Samplers with their noise turned off (k-diffusion's at s_churn = 0) still draw it; nothing of it counts."""
    return replace(plan, start_z=(), rows=tuple(replace(row, z=()) for row in plan.rows))


def _row(past: list[TapeRow], samples: list[Vector], target: Vector, tolerance: float) -> Row:
    here = past[-1]
    fresh = [here.m_axis, *here.z_axes, *(clamp.axis for clamp in here.clamps)]
    rest = target.copy()
    rest[fresh] = 0.0
    history = _Update(rest, samples[::-1], past[-2::-1]).explained(tolerance)
    if history is None:
        raise NotLinear(f"step {len(past) - 1} is no combination of a few past samples and outputs")
    xs, ms, ds = history
    newest = (tuple(float(target[clamp.axis]) for clamp in here.clamps),) if here.clamps else ()
    return Row(
        level=here.level,
        scale=here.scale,
        x=xs,
        m=(float(target[here.m_axis]), *ms),
        d=((newest or ((),)) + ds) if ds else newest,
        z=tuple(float(target[axis]) for axis in here.z_axes),
        clamps=tuple(_clamp(clamp.vector, clamp.low, clamp.high, here, tolerance) for clamp in here.clamps),
    )


History = tuple[tuple[float, ...], tuple[float, ...], tuple[tuple[float, ...], ...]]


@dataclass(frozen=True)
class _Update:
    """Update of one step: a vector to be written as coefficients of samples, outputs and clamps."""

    rest: Vector
    samples: list[Vector]
    """Newest first."""
    older: list[TapeRow]
    """The rows before this one, newest first."""

    @cached_property
    def unit(self) -> Vector:
        """The size of what meets on each axis. Code works on every axis by itself, so rounding is relative to it."""
        return _sizes(self.rest, *self.samples[: MAX_DEPTH + 1])

    def explained(self, limit: float) -> History | None:
        """Coefficients of x_k, …, of m_{k-1}, … and of d_{k-1}, … that sum to it; shallow and sparse first."""
        if np.abs(self.rest / self.unit).max() <= limit * 1e-3:
            return (), (), ()
        for depth in range(min(MAX_DEPTH, len(self.older)) + 1):
            for width in dict.fromkeys((1, depth + 1)):
                older = self.older[:depth]
                found = _solve(self.rest, self.samples[:width], _axes(older), self.unit, limit)
                if found is not None:
                    return _split(found, width, older)
        return self._sparsely(limit)

    def _sparsely(self, limit: float) -> History | None:
        """One sample of any age with the fewest outputs and clamps of any age; None where these are too many."""
        axes = _axes(self.older)
        best: tuple[int, int, Vector] | None = None
        for age, sample in enumerate(self.samples):
            unit = _sizes(self.unit, sample)
            found = _solve(self.rest, [sample], axes, unit, limit)
            if found is None:
                continue
            found[1:][np.abs(found[1:]) <= limit * unit[axes]] = 0.0
            terms = int(np.count_nonzero(found[1:]))
            if best is None or terms < best[0]:
                best = terms, age, found
        if best is None or best[0] > MAX_TERMS:
            return None
        _, age, found = best
        (weight,), ms, ds = _split(found, 1, self.older)
        return (0.0,) * age + (weight,), _trimmed(ms), ds[: max((j + 1 for j, d in enumerate(ds) if any(d)), default=0)]


def _sizes(*vectors: Vector) -> Vector:
    """The largest absolute value on each axis; 1 where there is none."""
    largest = np.abs(np.stack(vectors)).max(axis=0)
    return np.where(largest > 0, largest, 1.0)


def _axes(rows: list[TapeRow]) -> list[int]:
    return [axis for row in rows for axis in (row.m_axis, *(clamp.axis for clamp in row.clamps))]


def _trimmed(values: tuple[float, ...]) -> tuple[float, ...]:
    """Remove the zeros at the end."""
    return values[: max((j + 1 for j, value in enumerate(values) if value), default=0)]


def _solve(rest: Vector, vectors: list[Vector], axes: list[int], unit: Vector, limit: float) -> Vector | None:
    """``rest`` as a combination of ``vectors`` (least squares off the axes) and unit vectors along ``axes`` (exact)."""
    basis = np.stack(vectors, axis=1)
    off = np.ones(len(rest), dtype=bool)
    off[axes] = False
    scaled, wanted = basis[off] / unit[off, None], rest[off] / unit[off]
    if basis.shape[1] == 1:
        square = float(scaled[:, 0] @ scaled[:, 0])
        weights = np.array([float(scaled[:, 0] @ wanted) / square if square else 0.0])
    else:
        weights = np.linalg.lstsq(scaled, wanted, rcond=None)[0]
    left = rest - basis @ weights
    if (np.abs(left[off]) / unit[off]).max(initial=0.0) > limit:
        return None
    return np.concatenate([weights, left[axes]])


def _split(found: Vector, width: int, older: list[TapeRow]) -> History:
    values = iter(found.tolist())
    xs = tuple(next(values) for _ in range(width))
    ms, ds = [], []
    for row in older:
        ms.append(next(values))
        ds.append(tuple(next(values) for _ in row.clamps))
    return xs, tuple(ms), tuple(ds) if any(ds) else ()


def _clamp(vector: Vector, low: float, high: float, here: TapeRow, limit: float) -> Clamp:
    """The clamped vector over x_k and m_k alone."""
    m = float(vector[here.m_axis])
    rest = vector.copy()
    rest[here.m_axis] = 0.0
    found = _solve(rest, [here.x], [], _sizes(rest, here.x), limit)
    if found is None:
        raise NotLinear("a clamp of something other than this step's sample and output")
    return Clamp(float(found[0]), m, low, high)
