"""Plans as JSON: exact, and readable with a row of the table on each line."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from diffexp.errors import InputError
from diffexp.plan.levels import Level

if TYPE_CHECKING:
    from diffexp.plan.table import Plan

FORMAT = "diffexp plan 1"
_PARTS = ("x", "m", "d", "z")


def to_json(plan: "Plan") -> str:
    """The text of a plan; see ``Plan.to_json``."""
    head: dict[str, Any] = {"format": FORMAT, "name": plan.name, "sha256": plan.sha256}
    head |= {"start_std": plan.start_std, "start_scale": plan.start_scale, "start_z": plan.start_z}
    if plan.origin is not None:
        head["origin"] = plan.origin
    lines = [f"  {json.dumps(key)}: {_dumped(value)}," for key, value in head.items()]
    rows = [f"    {_dumped(_of_row(row))}" for row in plan.rows]
    return "\n".join(["{", *lines, '  "rows": [', ",\n".join(rows), "  ]", "}", ""])


def from_json(text: str) -> "Plan":
    """The plan of a text; see ``Plan.from_json``."""
    from diffexp.plan.table import Plan  # which needs this module

    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise InputError(f"its format is {content['format']!r}, and this version reads {FORMAT!r}")
        start = (_number(content["start_std"]), _number(content["start_scale"]), _numbers(content["start_z"]))
        rows = tuple(map(_row, content["rows"]))
        plan = Plan(rows, *start, str(content["name"]), origin=content.get("origin"))
        expected = str(content["sha256"])
    except KeyError as error:
        raise InputError(f"it is no plan of diffexp: {error} is missing") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"it is no plan of diffexp: {' '.join(str(error).split())}") from error
    if plan.sha256 != expected:
        raise InputError("its numbers are not those that its sha256 was computed from: it was changed or damaged")
    return plan


def _of_row(row: Any) -> dict[str, Any]:
    level = {"timestep": row.level.timestep, "alpha": row.level.alpha, "noise_std": row.level.sigma}
    found = level | {"scale": row.scale} | {part: value for part in _PARTS if (value := getattr(row, part))}
    return found | ({"clamps": [asdict(clamp) for clamp in row.clamps]} if row.clamps else {})


def _row(content: Mapping[str, Any]) -> Any:
    from diffexp.plan.table import Clamp, Row

    level = Level(*(_number(content[key]) for key in ("timestep", "alpha", "noise_std")))
    x, m, z = (_numbers(content.get(part, ())) for part in ("x", "m", "z"))
    d = tuple(map(_numbers, content.get("d", ())))
    clamps = tuple(Clamp(**{key: _number(value) for key, value in one.items()}) for one in content.get("clamps", ()))
    return Row(level, _number(content["scale"]), x, m, d, z, clamps)


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(map(_number, values))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is not a number")
    return float(value) if isinstance(value, str) else value


def _dumped(value: Any) -> str:
    return json.dumps(_plain(value), allow_nan=False, default=str)


def _plain(value: Any) -> Any:
    """The value with infinities and NaN as text, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
