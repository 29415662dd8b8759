"""Checks on the return values of plugins: a violation raises InputError that names the plugin's file.

Signatures are checked when plugins are found; these are the rules that only a run can check.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from diffexp.catalog.diffusers import PREFIX
from diffexp.catalog.entry import Entry
from diffexp.catalog.kinds import KINDS
from diffexp.components.metrics.base import Metric, SampleMetric
from diffexp.components.models.base import Condition, Model
from diffexp.components.trackers.base import Tracker
from diffexp.errors import InputError
from diffexp.plan.levels import Levels
from diffexp.plan.table import Plan

PROTOCOLS: Mapping[str, type] = {"model": Model, "metric": Metric, "tracker": Tracker}
"""What an object of a kind must have, for the kinds whose plugins return objects."""
_ABSENT = object()


def with_contract_checks(entry: Entry | None, built: Any) -> Any:
    """Wrap what ``Catalog.build`` returned for a plugin: it raises InputError where it breaks its kind's contract.

    Anything that is built in, or named by a ``_target_``, is returned as it is.

    Raises:
        InputError: a metric or tracker without the methods that it needs.
    """
    if entry is None or entry.built_in or entry.name.startswith(PREFIX):
        return built
    if (entry.kind, entry.style) == ("scheduler", "class"):
        return built
    if KINDS[entry.kind].instantiated:
        return _with_members(entry, built)
    checks: dict[str, Callable[..., Any]] = {
        "model": lambda result, runtime: _with_members(entry, result),
        "grid": lambda result, schedule, steps, *injected: _of_type(entry, result, Levels),
        "guidance": lambda result, predict, scale, *injected: _guided(entry, result),
        "loop": lambda result, batch: _of_shape(entry, result, (len(batch.indices), *batch.model.shape)),
        "scheduler": functools.partial(_solved, entry),
    }
    function, check = built.func, checks[entry.kind]

    @functools.wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        return check(function(*arguments, **options), *arguments)

    return functools.partial(checked, **built.keywords)


def _with_members(entry: Entry, thing: Any) -> Any:
    if hasattr(type(thing), "__getattr__"):
        return thing
    # Not hasattr, which would compute properties (the hash of a weight file).
    by_sample = entry.kind == "metric" and hasattr(thing, "compare")
    names = [name for name in vars(SampleMetric if by_sample else PROTOCOLS[entry.kind]) if not name.startswith("_")]
    missing = [name for name in names if inspect.getattr_static(thing, name, _ABSENT) is _ABSENT and name != "run_id"]
    if missing:
        raise _broken(entry, f"gave an object of type {type(thing).__name__} that lacks {', '.join(missing)}")
    return thing


def _guided(entry: Entry, predict: Any) -> Any:
    if not callable(predict):
        raise _broken(entry, f"returned {_shown(predict)} instead of a function (u, t, condition)")

    def checked(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return _of_shape(entry, predict(u, t, condition), tuple(u.shape))

    return checked


def _solved(entry: Entry, result: Any, first: Any, *rest: Any) -> Any:
    if entry.style == "plan":
        return _of_type(entry, result, Plan)
    if not isinstance(result, Tensor):
        raise _broken(entry, f"returned {_shown(result)} instead of a sample")
    return _of_shape(entry, result, tuple(rest[0].shape))


def _of_type(entry: Entry, result: Any, kind: type) -> Any:
    if not isinstance(result, kind):
        raise _broken(entry, f"returned {_shown(result)} instead of {kind.__name__}")
    return result


def _of_shape(entry: Entry, result: Any, shape: tuple[int, ...]) -> Any:
    if not isinstance(result, Tensor) or tuple(result.shape) != shape:
        raise _broken(entry, f"returned {_shown(result)} instead of a tensor of shape {list(shape)}")
    return result


def _shown(result: Any) -> str:
    return f"one of shape {list(result.shape)}" if isinstance(result, Tensor) else f"a {type(result).__name__}"


def _broken(entry: Entry, violation: str) -> InputError:
    return InputError(f"{entry.where}: {entry.kind}={entry.name} {violation}")
