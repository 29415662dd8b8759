"""The Plan: a scheduler as a table of numbers."""

import csv
import hashlib
import io
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from diffexp.errors import InputError
from diffexp.plan import as_json
from diffexp.plan.levels import Level
from diffexp.plan.method import Method
from diffexp.plan.row import Clamp, Row

if TYPE_CHECKING:
    import pandas as pd

    from diffexp.drawing import Drawing

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Plan:
    """A scheduler compiled for one model and number of steps. NFE = ``len(rows)``.

    The start sample is ``start_std`` times standard normal noise; before the first evaluation it becomes
    ``x_0 = start_scale * start + sum_i start_z[i] z_i`` (only samplers that churn at once have other than 1 and ()).
    """

    rows: tuple[Row, ...]
    start_std: float = 1.0
    start_scale: float = 1.0
    start_z: tuple[float, ...] = ()
    name: str = field(default="plan", compare=False)
    source: Method | None = field(default=None, init=False, compare=False, repr=False)
    """The code that it was compiled from; a plan with other numbers (``dataclasses.replace``) has none."""
    origin: Mapping[str, Any] | None = field(default=None, compare=False, repr=False, kw_only=True)
    """What a learned plan was learned for, and whether it was proven better there; see ``diffexp.learn``."""

    def compiled_from(self, method: Method | None) -> "Plan":
        """The same plan with its ``source``."""
        found = replace(self)
        object.__setattr__(found, "source", method)
        return found

    @property
    def nfe(self) -> int:
        """Number of function (network) evaluations."""
        return len(self.rows)

    def __repr__(self) -> str:
        times = [f"{level.timestep:.4g}" for level in self.levels]
        shown = times if len(times) <= 6 else [*times[:3], "…", *times[-2:]]
        draws = f", {self.draws} noise draws" if self.draws else ""
        return f"<Plan {self.name}: {self.nfe} evaluations at t = {' '.join(shown)}{draws}>"

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Level of every evaluation, in the scale of the network's input."""
        return tuple(row.level for row in self.rows)

    @property
    def draws(self) -> int:
        """Noise draws per sample, the start not counted."""
        return len(self.start_z) + sum(len(row.z) for row in self.rows)

    @property
    def depth(self) -> int:
        """Number of past rows that the updates read at most."""
        return max((row.depth for row in self.rows), default=0)

    @property
    def deterministic(self) -> bool:
        return self.draws == 0

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of every number in the table, without the name."""
        digest = hashlib.sha256()
        for value in _numbers(self):
            digest.update(struct.pack("<d", value))
        return digest.hexdigest()

    @property
    def is_unscaled(self) -> bool:
        """Whether the network sees every x as it is."""
        return all(row.scale == 1.0 for row in self.rows)

    def unscaled(self) -> "Plan":
        """The same method in the variable u_k = scale_k * x_k, which the network sees: every scale becomes 1.

        Two schedulers that differ only in how they scale x (diffusers' Euler carries x / alpha, DDIM carries x) have
        equal unscaled plans. The output is left as it is.
        """
        scales = [row.scale for row in self.rows] + [1.0]
        rows = []
        for k, row in enumerate(self.rows):
            out = scales[k + 1]
            rows.append(
                replace(
                    row,
                    scale=1.0,
                    x=tuple(c * out / scales[k - j] for j, c in enumerate(row.x)),
                    m=tuple(c * out for c in row.m),
                    d=tuple(tuple(c * out for c in past) for past in row.d),
                    z=tuple(c * out for c in row.z),
                    clamps=tuple(replace(c, x=c.x / row.scale) for c in row.clamps),
                )
            )
        first = scales[0]
        found = replace(
            self,
            rows=tuple(rows),
            start_scale=1.0,
            start_std=self.start_std * self.start_scale * first,
            start_z=tuple(c * first for c in self.start_z),
        )
        return found.compiled_from(self.source)

    def difference(self, other: "Plan") -> float:
        """Largest difference between two tables, relative to the larger of 1 and the coefficient; inf for other shapes.

        Both are compared unscaled (see there): 0 means the same method, on every model and every noise. Absent
        coefficients count as 0. Levels count by their timestep.
        """
        mine, theirs = self.unscaled(), other.unscaled()
        if len(mine.rows) != len(theirs.rows):
            return float("inf")
        pairs = [(mine.start_std, theirs.start_std), *_paired(mine.start_z, theirs.start_z)]
        for a, b in zip(mine.rows, theirs.rows):
            pairs.append((a.level.timestep, b.level.timestep))
            pairs += _paired(a.x, b.x) + _paired(a.m, b.m) + _paired(a.z, b.z)
            for past_a, past_b in _padded(a.d, b.d, ()):
                pairs += _paired(past_a, past_b)
            for c, e in _padded(a.clamps, b.clamps, Clamp(0.0, 0.0, 0.0, 0.0)):
                pairs += [(c.x, e.x), (c.m, e.m), (c.low, e.low), (c.high, e.high)]
        return max(_relative(a, b) for a, b in pairs)

    def to_csv(self) -> str:
        """The table as text: a line per row, empty cells where a method has no such coefficient.

        The network sees alpha * x0 + noise_std * eps; what grids call sigma is another thing (``diffexp.plan.levels``).
        """
        past = range(self.depth + 1)
        clamps = range(max((len(row.clamps) for row in self.rows), default=0))
        draws = range(max((len(row.z) for row in self.rows), default=0))
        header = ["step", "timestep", "alpha", "noise_std", "scale"]
        header += [f"clamp{i}_{part}" for i in clamps for part in ("x", "m", "low", "high")]
        header += [f"x[k-{j}]" for j in past] + [f"m[k-{j}]" for j in past]
        header += [f"d{i}[k-{j}]" for j in past for i in clamps] + [f"z{i}" for i in draws]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        for k, row in enumerate(self.rows):
            cells: list[float | str] = [k, row.level.timestep, row.level.alpha, row.level.sigma, row.scale]
            for i in clamps:
                c = row.clamps[i] if i < len(row.clamps) else None
                cells += [c.x, c.m, c.low, c.high] if c else [""] * 4
            cells += [_cell(row.x, j) for j in past] + [_cell(row.m, j) for j in past]
            cells += [_cell(row.d[j] if j < len(row.d) else (), i) for j in past for i in clamps]
            cells += [_cell(row.z, i) for i in draws]
            writer.writerow(repr(c) if isinstance(c, float) else c for c in cells)
        return out.getvalue()

    def to_json(self) -> str:
        """The plan as text that ``from_json`` reads back, equal in every number."""
        start = {"start_std": self.start_std, "start_scale": self.start_scale, "start_z": self.start_z}
        origin = {} if self.origin is None else {"origin": self.origin}
        return as_json.to_json({"name": self.name, "sha256": self.sha256, **start, **origin}, self.rows)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan in a text of ``to_json``.

        Raises:
            InputError: it is none, it is of another version, or a number in it was changed.
        """
        fields, expected = as_json.from_json(text)
        plan = cls(**fields)
        if plan.sha256 != expected:
            raise InputError("its numbers are not those that its sha256 was computed from: it was changed or damaged")
        return plan

    def to_frame(self) -> "pd.DataFrame":
        """The table as a ``pandas.DataFrame``: the columns of ``to_csv``, a row for each evaluation."""
        import pandas as pd  # half a second

        return pd.read_csv(io.StringIO(self.to_csv()), index_col="step")

    def plot(self) -> "Drawing":
        """A drawing for a notebook or ``.save("plan.svg")``: levels, coefficients and noise over the evaluations."""
        from diffexp.plan.plot import plot  # needs jinja's packages

        return plot(self.name, self.rows)


def _cell(values: Sequence[float], index: int) -> float | str:
    return values[index] if index < len(values) else ""


def _relative(a: float, b: float) -> float:
    if a == b:
        return 0.0
    return abs(a - b) / max(1.0, abs(a), abs(b)) if math.isfinite(a) and math.isfinite(b) else math.inf


def _padded(a: Sequence[T], b: Sequence[T], fill: T) -> list[tuple[T, T]]:
    size = max(len(a), len(b))
    return list(zip([*a, *[fill] * (size - len(a))], [*b, *[fill] * (size - len(b))]))


def _paired(a: Sequence[float], b: Sequence[float]) -> list[tuple[float, float]]:
    return _padded(a, b, 0.0)


def _numbers(plan: Plan) -> list[float]:
    numbers = [float(plan.nfe), plan.start_std, plan.start_scale, float(len(plan.start_z)), *plan.start_z]
    for row in plan.rows:
        numbers += [row.level.timestep, row.level.alpha, row.level.sigma, row.scale]
        for part in (row.x, row.m, row.z, *row.d):
            numbers += [float(len(part)), *part]
        for clamp in row.clamps:
            numbers += [clamp.x, clamp.m, clamp.low, clamp.high]
    return numbers
