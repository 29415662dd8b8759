"""Plans as JSON: exact, and readable with a row of the table on each line."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from diffexp.errors import InputError
from diffexp.plan.levels import Level
from diffexp.plan.row import Clamp, Row

FORMAT = "diffexp plan 1"
_PARTS = ("x", "m", "d", "z")


def to_json(head: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The text of a plan: a line for each value of ``head``, then one for each row."""
    lines = [f"  {json.dumps(key)}: {_dumped(value)}," for key, value in {"format": FORMAT, **head}.items()]
    table = [f"    {_dumped(_of_row(row))}" for row in rows]
    return "\n".join(["{", *lines, '  "rows": [', ",\n".join(table), "  ]", "}", ""])


def from_json(text: str) -> tuple[dict[str, Any], str]:
    """The fields of the plan in a text of ``to_json``, and the SHA-256 that its table had."""
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise InputError(f"its format is {content['format']!r}, and this version reads {FORMAT!r}")
        start = {key: _number(content[key]) for key in ("start_std", "start_scale")}
        start |= {"start_z": _numbers(content["start_z"]), "origin": content.get("origin")}
        rows = tuple(map(_row, content["rows"]))
        return {"rows": rows, "name": str(content["name"]), **start}, str(content["sha256"])
    except KeyError as error:
        raise InputError(f"it is no plan of diffexp: {error} is missing") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"it is no plan of diffexp: {' '.join(str(error).split())}") from error


def _of_row(row: Row) -> dict[str, Any]:
    level = {"timestep": row.level.timestep, "alpha": row.level.alpha, "noise_std": row.level.sigma}
    found = level | {"scale": row.scale} | {part: value for part in _PARTS if (value := getattr(row, part))}
    return found | ({"clamps": [asdict(clamp) for clamp in row.clamps]} if row.clamps else {})


def _row(content: Mapping[str, Any]) -> Row:
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
