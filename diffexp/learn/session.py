"""Learning one plan: from a composed config to a folder with the plan, its proof and a page."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from diffexp.catalog.discover import Catalog
from diffexp.components.plan_files import NAME, load_plan
from diffexp.errors import InputError
from diffexp.experiment.build import Components, assemble
from diffexp.experiment.learned_for import UNPROVEN, conditions_of
from diffexp.experiment.lock import lock
from diffexp.experiment.provenance import git_commit, installed_versions
from diffexp.experiment.reference import STEPS
from diffexp.files import write_json, write_text
from diffexp.learn.fit import STATE, Curve, seconds_scored
from diffexp.learn.gate import Proof, compare
from diffexp.learn.page import write_page
from diffexp.learn.problem import Problem
from diffexp.learn.settings import Settings
from diffexp.learn.table import Table
from diffexp.plan.table import Plan

log = logging.getLogger(__name__)

USUAL_GRID = "ays"
"""The timestep schedule that learning starts from by default, if the model's own is not better; of discrete time."""
TRIED = 16
"""Noises that choose between these two."""
RECORD = "learn.json"
"""What a folder was asked for, so that it can be resumed."""

Method = Callable[[Problem, Path | None, Curve], tuple[Table, bool]]


@dataclass(frozen=True)
class Learned:
    """A learned plan and how it was found."""

    folder: Path
    plan: Plan
    curve: Curve
    proof: Proof | None
    """None where learning was interrupted, or no comparison was asked for."""
    interrupted: bool


def learn(
    config: Mapping[str, Any],
    settings: Settings,
    folder: Path,
    catalog: Catalog,
    command: str,
    *,
    resume: bool = False,
    usual_grid: bool = False,
) -> Learned:
    """Learn a plan for the run of a config; everything is in ``folder`` however it ends.

    Args:
        command: the command line, for the record.
        resume: continue what is in the folder; of a plan that is learned, compare it again.
        usual_grid: choose the grid to start from: ``USUAL_GRID`` or the model's own, whichever is more accurate.

    Raises:
        InputError: the run has no accurate solutions to learn from, its scheduler is no table, or a bad setting.
    """
    with lock(folder):
        if not resume:
            for name in (STATE, NAME):
                (folder / name).unlink(missing_ok=True)
        earlier = _seconds_so_far(folder)
        run, config = _assembled(config, settings, catalog, usual_grid=usual_grid)
        write_json(folder / RECORD, {"command": command, "config": config, "settings": asdict(settings)})
        began, problem = time.perf_counter(), Problem(run, config, settings)
        log.info(
            "%s · %s on %s · %d evaluations · method %s",
            *(problem.run.model.id, config["scheduler"]["name"], config["grid"]["name"], problem.base.nfe),
            settings.method,
        )
        curve = Curve()
        table, interrupted = method_of(settings.method)(problem, folder, curve)
        plan = replace(
            table.to_plan(), origin=origin_of(problem, curve, command, earlier + time.perf_counter() - began)
        )
        _write_plan(folder, plan)
        proof = None
        if settings.test and not interrupted:
            proof = compare(problem, plan, catalog)
            assert plan.origin is not None
            plan = replace(plan, origin={**plan.origin, "proof": proof.record()})
            _write_plan(folder, plan)
        write_page(folder / "report.html", problem, plan, curve, proof)
        _log_outcome(proof, interrupted)
    return Learned(folder, plan, curve, proof, interrupted)


def _assembled(
    config: Mapping[str, Any], settings: Settings, catalog: Catalog, *, usual_grid: bool
) -> tuple[Components, Mapping[str, Any]]:
    """The components of a run, and its config with the grid to start from.

    Unless a dtype was given, half precision becomes float32: its rounding would hide what a small change of a number
    does, and a plan that was learned in float32 serves half precision as well.
    """
    run = assemble(config, catalog)
    if config["dtype"] == "auto" and torch.finfo(run.model.dtype).bits < 32:
        config = {**config, "dtype": "float32"}
        run = assemble(config, catalog)
    if not usual_grid or not run.model.training.schedule.discrete:
        return run, config
    options = {option.name: option.default for option in catalog.get("grid", USUAL_GRID).options}
    other = {**config, "grid": {**config["grid"], **options, "name": USUAL_GRID}}
    try:
        usual = assemble(other, catalog)
    except InputError:
        return run, config
    own = _accuracy(run, config, settings)
    return (run, config) if own > _accuracy(usual, other, settings) else (usual, other)


def _accuracy(run: Components, config: Mapping[str, Any], settings: Settings) -> float:
    """What learning would start with, in dB on a few noises; -inf where there is nothing to learn from."""
    problem = Problem(run, config, replace(settings, valid=min(settings.valid, TRIED)))
    try:
        return problem.score(problem.table())
    except InputError:
        return -math.inf


def method_of(name: str) -> Method:
    """The method of a name."""
    return getattr(import_module(f"diffexp.learn.methods.{name}"), name)


def origin_of(problem: Problem, curve: Curve, command: str, seconds: float) -> dict[str, Any]:
    """What a plan was learned for and how, in plain containers."""
    config, best = problem.config, curve.best
    return {
        **conditions_of(problem.run, config),
        **{key: config[key] for key in ("model", "prompt", "negative_prompt", "label", "seed")},
        "start": {"scheduler": config["scheduler"], "grid": config["grid"], "sha256": problem.base.sha256},
        "settings": asdict(problem.settings),
        "teacher": {"solver": "unipc order 3", "steps": STEPS},
        "score": {"unit": curve.unit, "at_start": curve.points[0]["score"], "best": best},
        "seconds": round(seconds, 1),
        "command": command,
        "versions": installed_versions(),
        "git_commit": git_commit(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "proof": None,
    }


def _seconds_so_far(folder: Path) -> float:
    """What earlier attempts took; of one that was killed, until its last score."""
    file = folder / NAME
    return float((load_plan(file).origin or {}).get("seconds", 0.0)) if file.is_file() else seconds_scored(folder)


def _write_plan(folder: Path, plan: Plan) -> None:
    write_text(folder / NAME, plan.to_json())
    write_text(folder / "plan.csv", plan.to_csv())


def _log_outcome(proof: Proof | None, interrupted: bool) -> None:
    if interrupted:
        log.warning("interrupted: the best plan so far is kept; resume= continues")
    elif proof is None:
        log.warning("this plan %s", UNPROVEN)
    else:
        log.log(logging.INFO if proof.better else logging.WARNING, "this plan %s", proof.verdict)
