"""Learned plans in files: those that ship with the package, and those of folders that ``diffexp.learn`` writes."""

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from diffexp.errors import InputError
from diffexp.files import write_text
from diffexp.plan.table import Plan

if TYPE_CHECKING:
    from diffexp.components.models.base import Model

log = logging.getLogger(__name__)

NAME = "plan.json"
SHIPPED = Path(__file__).parent / "schedulers" / "plans"
"""Of the package: a folder for each model, a file for each number of evaluations."""


def load_plan(path: str | Path, steps: int | None = None) -> Plan:
    """The plan in a file of ``Plan.to_json``, or in a folder with a ``plan.json`` that ``diffexp.learn`` has written.

    Args:
        path: the file; a folder with one; or a folder of such folders, of which ``steps`` chooses.
        steps: the number of evaluations that is wanted of several.

    Raises:
        InputError: there is no such file, it holds no plan, or of several none or more than one fits.
    """
    place = Path(path).expanduser()
    file = place / NAME if place.is_dir() else place
    if place.is_dir() and not file.is_file():
        return _one_of(place, steps)
    try:
        return Plan.from_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def shipped_plan(model: "Model | None", steps: int) -> Plan:
    """The plan that ships for a model and a number of evaluations.

    Raises:
        InputError: there is none; the message says which there are, or how to learn one.
    """
    if model is None:
        raise InputError("scheduler=learned depends on the model: give one, or the file of a plan as scheduler.path")
    found = {plan.nfe: plan for plan in plans_for(model)}
    if steps in found:
        return found[steps]
    command = f"python -m diffexp.learn model={model.id} steps={steps}"
    if not found:
        raise InputError(
            f"no learned plan ships for model={model.id}: learn one by '{command}', then give scheduler.path"
        )
    known = ", ".join(map(str, sorted(found)))
    raise InputError(
        f"no learned plan of steps={steps} ships for model={model.id}: choose one of {known}, or '{command}'"
    )


def plans_for(model: "Model") -> Iterator[Plan]:
    """The shipped plans that were learned for a model: for its weights, or for its name where those are others."""
    known = [plan for file in _shipped_files() if (plan := _shipped(file)).origin]
    weights = model.weights_sha256
    same = [plan for plan in known if weights and (plan.origin or {}).get("weights_sha256") == weights]
    yield from same or (plan for plan in known if (plan.origin or {}).get("model_id") == model.id)


def ship(folder: str | Path) -> Path:
    """Copy the proven plan in a folder to where those that ship are; returns the file.

    Raises:
        InputError: there is none, or it was not proven better than hand-made schedulers.
    """
    plan = load_plan(folder)
    origin = plan.origin or {}
    if not (origin.get("proof") or {}).get("better"):
        raise InputError(f"{folder}: only a plan that was proven better than hand-made schedulers is shipped")
    file = SHIPPED / str(origin["model_id"]) / f"{plan.nfe}.json"
    write_text(file, plan.to_json())
    return file


def _one_of(folder: Path, steps: int | None) -> Plan:
    plans = {file: load_plan(file) for file in sorted(folder.glob(f"*/{NAME}"))}
    fitting = [plan for plan in plans.values() if plan.nfe == steps]
    if len(fitting) == 1:
        return fitting[0]
    if not plans:
        raise InputError(f"{folder} holds no {NAME}: give a file, or a folder that python -m diffexp.learn has written")
    known = ", ".join(f"{file.parent.name} (steps={plan.nfe})" for file, plan in plans.items())
    raise InputError(
        f"{folder} holds {'several plans' if fitting else f'no plan of steps={steps}'}: choose one of {known}"
    )


def _shipped_files() -> list[Path]:
    return sorted(SHIPPED.glob("*/*.json"))


@cache
def _shipped(file: Path) -> Plan:
    return load_plan(file)
