"""What a learned plan was learned for, and whether a run is another thing: logged, never refused."""

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from diffexp.experiment.build import Components
from diffexp.plan.table import Plan

log = logging.getLogger(__name__)

UNPROVEN = "was not compared with hand-made schedulers"


def conditions_of(run: Components, config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a plan's ``origin`` that say what it was learned for."""
    return {
        "model_id": run.model.id,
        "weights_sha256": run.model.weights_sha256,
        "dtype": str(run.model.dtype).removeprefix("torch."),
        "guidance": dict(config["guidance"]),
        "guidance_scale": run.guidance_scale,
    }


def warn_of_other_conditions(run: Components, config: Mapping[str, Any]) -> None:
    """Log what differs in a run from what its learned plan was learned for, and a plan that is not proven better.

    A plan is a property of the network, not of its rounding: one that was learned in a finer precision serves a coarser
    one, which is no warning. The other way round, what was learned may be partly rounding.
    """
    origin = run.sampler.origin if isinstance(run.sampler, Plan) else None
    if not origin:
        return
    name = config["scheduler"].get("name", "scheduler")
    for difference in _differences(origin, conditions_of(run, config)):
        log.warning("%s: %s", name, difference)
    learned, here = str(origin.get("dtype")), run.model.dtype
    if learned != str(here).removeprefix("torch."):
        level = logging.INFO if _rounding(getattr(torch, learned, None)) <= _rounding(here) else logging.WARNING
        log.log(level, "%s: the plan was learned in dtype=%s, not %s", name, learned, str(here).removeprefix("torch."))
    proof = origin.get("proof") or {}
    if not proof.get("better"):
        log.warning("%s: this plan %s", name, proof.get("verdict") or UNPROVEN)


def _rounding(dtype: torch.dtype | None) -> float:
    return torch.finfo(dtype).eps if dtype is not None else math.inf


def _differences(origin: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    if origin.get("model_id") != here["model_id"]:
        yield f"the plan was learned for model={origin.get('model_id')}, not {here['model_id']}"
    elif origin.get("weights_sha256") != here["weights_sha256"]:
        yield f"the plan was learned for other weights of {here['model_id']}"
    if origin.get("guidance_scale") != here["guidance_scale"]:
        yield f"the plan was learned for guidance_scale={origin.get('guidance_scale')}, not {here['guidance_scale']:g}"
    elif here["guidance_scale"] != 1 and origin.get("guidance") != here["guidance"]:
        yield "the plan was learned under another guidance, or other options of it"
