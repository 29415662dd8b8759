"""From traced vectors to rows: each is rewritten over the shortest history that reproduces it."""

from dataclasses import replace

import numpy as np

from diffexp.plan.plan import Clamp, Plan, Row
from diffexp.plan.tape import NotLinear, Recording, TapeRow, Vector

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
    tolerance, rounding = (3e-6, 3e-6) if recording.single else (1e-11, 1e-14)
    samples = [row.x for row in recording.rows] + [recording.output]
    rows = tuple(
        _row(recording.rows[: k + 1], samples[: k + 1], samples[k + 1], tolerance, rounding)
        for k in range(len(recording.rows))
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


def _row(past: list[TapeRow], samples: list[Vector], target: Vector, tolerance: float, rounding: float) -> Row:
    here = past[-1]
    fresh = [here.m_axis, *here.z_axes, *(clamp.axis for clamp in here.clamps)]
    rest = target.copy()
    rest[fresh] = 0.0
    scale = max(1.0, float(np.abs(target).max()))
    limit = tolerance * scale
    newest = Row(
        level=here.level,
        scale=here.scale,
        x=(),
        m=(float(target[here.m_axis]),),
        d=(tuple(float(target[clamp.axis]) for clamp in here.clamps),) if here.clamps else (),
        z=tuple(float(target[axis]) for axis in here.z_axes),
        clamps=tuple(_clamp(clamp.vector, clamp.low, clamp.high, here, limit) for clamp in here.clamps),
    )
    history = _explain(rest, past, samples, limit, rounding * scale) or _explain_sparsely(rest, past, samples, limit)
    if history is None:
        raise NotLinear(f"step {len(past) - 1} is no combination of a few past samples and outputs")
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


def _explain(rest: Vector, past: list[TapeRow], samples: list[Vector], limit: float, rounding: float) -> History | None:
    """Coefficients of x_k, …, of m_{k-1}, … and of d_{k-1}, … that sum to ``rest``; shallow and sparse first.

    What is left over at a depth is rounding below ``rounding``. Between that and ``limit`` it may be a tiny coefficient
    of a multistep method (LMS has such at its end): then one sample at a greater depth is tried before it is dropped.
    """
    if np.abs(rest).max() <= limit * 1e-3:
        return (), (), ()
    deepest = min(MAX_DEPTH, len(past) - 1)
    for depth in range(deepest + 1):
        for width in dict.fromkeys((1, depth + 1)):
            if _at(depth, width, rest, past, samples, limit) is None:
                continue
            exact = _at(depth, width, rest, past, samples, rounding)
            deeper = (_at(more, 1, rest, past, samples, rounding) for more in range(depth + 1, deepest + 1))
            return exact or next(filter(None, deeper), None) or _at(depth, width, rest, past, samples, limit)
    return None


def _at(
    depth: int, width: int, rest: Vector, past: list[TapeRow], samples: list[Vector], limit: float
) -> History | None:
    """The same over the newest ``width`` samples and the outputs and clamps of ``depth`` rows before this one."""
    older = past[-2 : -2 - depth : -1]
    axes = [axis for row in older for axis in (row.m_axis, *(c.axis for c in row.clamps))]
    found = _solve(rest, samples[: -width - 1 : -1], axes, limit)
    return None if found is None else _split(found, width, older)


def _explain_sparsely(rest: Vector, past: list[TapeRow], samples: list[Vector], limit: float) -> History | None:
    """One sample of any age with the fewest outputs and clamps of any age; None where these are too many."""
    older = past[-2::-1]
    axes = [axis for row in older for axis in (row.m_axis, *(c.axis for c in row.clamps))]
    best: tuple[int, int, Vector] | None = None
    for age, sample in enumerate(reversed(samples)):
        found = _solve(rest, [sample], axes, limit)
        if found is None:
            continue
        found[1:][np.abs(found[1:]) <= limit] = 0.0
        terms = int(np.count_nonzero(found[1:]))
        if best is None or terms < best[0]:
            best = terms, age, found
    if best is None or best[0] > MAX_TERMS:
        return None
    _, age, found = best
    (weight,), ms, ds = _split(found, 1, older)
    return (0.0,) * age + (weight,), _trimmed(ms), ds[: max((j + 1 for j, d in enumerate(ds) if any(d)), default=0)]


def _trimmed(values: tuple[float, ...]) -> tuple[float, ...]:
    """Without the zeros at the end."""
    return values[: max((j + 1 for j, value in enumerate(values) if value), default=0)]


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
