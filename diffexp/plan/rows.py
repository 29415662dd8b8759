"""From traced vectors to rows: each is rewritten over the shortest history that reproduces it."""

from dataclasses import replace

import numpy as np

from diffexp.plan.plan import Clamp, Plan, Row
from diffexp.plan.tape import NotLinear, Recording, TapeRow, Vector

MAX_DEPTH = 6
"""Rows an update may look back; PNDM and fourth-order IPNDM need five."""


def build_plan(recording: Recording, name: str, start_std: float) -> Plan:
    """The plan of a recording.

    Raises:
        NotLinear: an update is no combination of the last ``MAX_DEPTH`` samples, outputs and clamps.
    """
    tolerance = 3e-6 if recording.single else 1e-11
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
    limit = tolerance * max(1.0, float(np.abs(target).max()))
    newest = Row(
        level=here.level,
        scale=here.scale,
        x=(),
        m=(float(target[here.m_axis]),),
        d=(tuple(float(target[clamp.axis]) for clamp in here.clamps),) if here.clamps else (),
        z=tuple(float(target[axis]) for axis in here.z_axes),
        clamps=tuple(_clamp(clamp.vector, clamp.low, clamp.high, here, limit) for clamp in here.clamps),
    )
    history = _explain(rest, past, samples, limit)
    if history is None:
        raise NotLinear(f"step {len(past) - 1} is no combination of the last {MAX_DEPTH + 1} samples and outputs")
    xs, ms, ds = history
    return Row(
        newest.level,
        newest.scale,
        xs,
        newest.m + ms,
        (newest.d or ((),)) + ds if ds else newest.d,
        newest.z,
        newest.clamps,
    )


History = tuple[tuple[float, ...], tuple[float, ...], tuple[tuple[float, ...], ...]]


def _explain(rest: Vector, past: list[TapeRow], samples: list[Vector], limit: float) -> History | None:
    """Coefficients of x_k, …, of m_{k-1}, … and of d_{k-1}, … that sum to ``rest``; shallow and sparse first."""
    if np.abs(rest).max() <= limit * 1e-3:
        return (), (), ()
    for depth in range(min(MAX_DEPTH, len(past) - 1) + 1):
        older = past[-2 : -2 - depth : -1]
        axes = [axis for row in older for axis in (row.m_axis, *(c.axis for c in row.clamps))]
        for width in dict.fromkeys((1, depth + 1)):
            vectors = samples[: -width - 1 : -1]
            found = _solve(rest, vectors, axes, limit)
            if found is not None:
                return _split(found, width, older)
    return None


def _solve(rest: Vector, vectors: list[Vector], axes: list[int], limit: float) -> Vector | None:
    """``rest`` as a combination of ``vectors`` (least squares off the axes) and unit vectors along ``axes`` (exact)."""
    basis = np.stack(vectors, axis=1)
    off = np.ones(len(rest), dtype=bool)
    off[axes] = False
    if basis.shape[1] == 1:
        column = basis[off, 0]
        square = float(column @ column)
        weights = np.array([float(column @ rest[off]) / square if square else 0.0])
    else:
        weights = np.linalg.lstsq(basis[off], rest[off], rcond=None)[0]
    left = rest - basis @ weights
    if np.abs(left[off]).max(initial=0.0) > limit:
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
    found = _solve(rest, [here.x], [], limit)
    if found is None:
        raise NotLinear("a clamp of something other than this step's sample and output")
    return Clamp(float(found[0]), m, low, high)
