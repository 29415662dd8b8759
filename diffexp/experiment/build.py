"""Builds the components of a run from a composed config."""

import functools
import itertools
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from diffexp.catalog.discover import Catalog
from diffexp.catalog.kinds import KINDS, TARGET
from diffexp.components.grids.choice import Grid
from diffexp.components.guidance.base import Predict
from diffexp.components.guidance.diffusers_guiders import is_guider
from diffexp.components.loops.base import Batch
from diffexp.components.metrics.base import Metric
from diffexp.components.models.base import Model, Request, Runtime
from diffexp.components.models.passes import PassCounter
from diffexp.components.prompts import read_texts
from diffexp.components.sampler import Recipe
from diffexp.components.schedulers.foreign.diffusers_build import find_class
from diffexp.components.schedulers.foreign.k_diffusion import READS_UNCONDITIONAL
from diffexp.components.schedulers.foreign.learned_variance import takes_variance, warn_of_variance
from diffexp.components.trackers.several import Trackers
from diffexp.errors import InputError
from diffexp.experiment.context import RunContext
from diffexp.experiment.contracts import with_contract_checks
from diffexp.experiment.device import read_device, read_dtype
from diffexp.experiment.guide import Guide, rehearse
from diffexp.experiment.live import Live
from diffexp.plan.compile import Direct, Sampler
from diffexp.plan.levels import Schedule
from diffexp.plan.table import Plan

log = logging.getLogger(__name__)

DIFFUSERS = "diffusers"
"""The option of schedulers and of guidances that takes any diffusers class as ``_target_``."""


@dataclass(frozen=True)
class Components:
    """Everything that one run is built from; a ``loops.base.Run``."""

    model: Model
    sampler: Sampler
    predict: Predict
    """The model under guidance."""
    loop: Callable[[Batch], torch.Tensor]
    metrics: Mapping[str, Metric]
    tracker: Trackers
    request: Request
    recipe: Recipe
    """What ``sampler`` is built from."""
    guidance: str
    """Name of the guidance."""
    guidance_scale: float
    guide: Guide
    """What ``predict`` is built with."""
    guidance_traits: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the guidance's decorator."""
    stepwise: bool = False
    """Whether the guidance depends on the steps of the run, not on the noise level alone."""
    code_sha256: tuple[str, ...] = ()
    """Hashes of the plugin files that define the model and its guidance."""
    from_noise: bool = True
    """Whether the loop takes the start noise to the sample by ``sampler`` alone: its trait ``solves_from_noise``."""
    live: Live = field(default_factory=lambda: Live(Trackers({}), 0))
    """Logs to ``tracker`` while the run samples."""
    context: RunContext = field(default_factory=RunContext)
    passes: PassCounter = field(default_factory=PassCounter)
    """Counts the forward passes of ``model``."""


def assemble(config: Mapping[str, Any], catalog: Catalog, context: RunContext | None = None) -> Components:
    """Build what the config names; ``context`` are the services of the process.

    Raises:
        InputError: anything that is unknown, of the wrong kind, or incompatible.
    """
    context = context or RunContext()
    runtime = Runtime(read_device(config["device"]), read_dtype(config["dtype"]), bool(config["compile"]))
    passes = PassCounter()
    model = passes.counting(context.model(lambda: _build(catalog, "model", config["model"])(runtime)))
    scale = model.guidance_scale if config["guidance_scale"] is None else float(config["guidance_scale"])
    request = Request(
        read_texts("prompt", config["prompt"]),
        read_texts("negative_prompt", config["negative_prompt"]),
        config["label"],
        int(config["steps"]),
        arguments=config.get("pipe") or {},
    )
    traits = _traits(catalog, "guidance", config["guidance"])
    is_called = getattr(model, "guides", False) or _traits(catalog, "loop", config["loop"]).get("guides")
    if is_called:
        request = replace(request, guidance=_scales(model, scale, config, traits))
    elif request.arguments:
        name = next(iter(request.arguments))
        raise InputError(f"pipe.{name} has no effect: model={model.id} is evaluated directly; add loop=pipeline")
    model.conditions(request, range(1))  # an impossible prompt or label is refused before anything is computed
    guide = Guide(_guidance(config["guidance"], catalog), scale)
    recipe = _recipe(config, catalog, model).within(config.get("max_nfe"))
    recipe = recipe.within(
        config.get("max_forward_passes"),
        lambda sampler: rehearse(guide, model, sampler, request).passes,
        "max_forward_passes",
    )
    sampler, request = _sampler(recipe), replace(request, steps=recipe.steps)
    equals = _traits(catalog, "scheduler", config["scheduler"]).get("diffusers", ())
    takes = takes_variance(recipe.scheduler, equals, recipe.training, recipe.options)
    request = replace(request, levels=sampler.levels, reads_variance=bool(is_called and takes))
    if not request.reads_variance:
        warn_of_variance(sampler, recipe.training, takes)
    if scale != 1 and getattr(recipe.scheduler, READS_UNCONDITIONAL, False):
        name = f"scheduler={config['scheduler']['name']}"
        raise InputError(f"{name} reads the estimate without guidance, which is not at hand; add guidance_scale=1")
    recipe.warn_of_ignored_config()
    trackers = build_trackers(config["tracker"], catalog)
    return Components(
        model=model,
        sampler=sampler,
        predict=guide(model, sampler),
        loop=_build(catalog, "loop", config["loop"]),
        metrics={name: _build(catalog, "metric", node) for name, node in (config["metric"] or {}).items() if node},
        tracker=trackers,
        live=Live(trackers, int(config["seed"])),
        request=request,
        recipe=recipe,
        guidance=str(config["guidance"].get("name")),
        guidance_scale=scale,
        guide=guide,
        guidance_traits=traits,
        stepwise=guide.is_stepwise(traits),
        code_sha256=_code(config, catalog),
        from_noise=bool(_traits(catalog, "loop", config["loop"]).get("solves_from_noise")),
        context=context,
        passes=passes,
    )


def _scales(model: Model, scale: float, config: Mapping[str, Any], traits: Mapping[str, Any]) -> dict[str, float]:
    """The scales of a pipeline that guides by itself, as guidances with the trait ``pipelines`` do.

    Raises:
        InputError: the guidance is another one.
    """
    guidance, loop = config["guidance"], config["loop"].get("name")
    if not traits.get("pipelines"):
        name = guidance.get("name")
        if getattr(model, "guides", False):
            raise InputError(
                f"model={model.id} is guided by its own pipeline, not by guidance={name}; choose cfg or none"
            )
        raise InputError(f"loop={loop} uses the guidance of the pipeline; guidance={name} needs loop=denoise")
    return {
        "guidance_scale": 1.0 if traits.get("ignores_scale") else scale,
        "guidance_rescale": float(guidance.get("rescale") or 0.0),
    }


def build_trackers(value: Any, catalog: Catalog) -> Trackers:
    """The trackers that the config ``tracker`` names, without those that log nothing: their trait is ``silent``.

    Raises:
        InputError: one is unknown, or what it needs is not installed.
    """
    nodes = [node for node in KINDS["tracker"].nodes(value) if not _traits(catalog, "tracker", node).get("silent")]
    return Trackers(
        {str(node.get("name") or node[TARGET]).rpartition(".")[2]: _build(catalog, "tracker", node) for node in nodes}
    )


def _code(config: Mapping[str, Any], catalog: Catalog) -> tuple[str, ...]:
    entries = [catalog.find(kind, str(config[kind].get("name"))) for kind in ("model", "guidance")]
    return tuple(entry.sha256 for entry in entries if entry and entry.file.is_file() and not entry.built_in)


def _guidance(node: Mapping[str, Any], catalog: Catalog) -> functools.partial[Any]:
    made = _build(catalog, "guidance", node)
    if node.get("name") == DIFFUSERS and not is_guider(made.func):
        raise InputError(f"guidance._target_={node['_target_']} is not a guider such as those of diffusers.guiders")
    return made


def _traits(catalog: Catalog, kind: str, node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keywords of the decorator of a node's choice; none for a ``_target_``."""
    entry = catalog.find(kind, str(node.get("name")))
    return entry.traits if entry else {}


def _build(catalog: Catalog, kind: str, node: Mapping[str, Any]) -> Any:
    """Build a plugin with checks on its return values; see ``Catalog.build``."""
    return with_contract_checks(catalog.find(kind, str(node.get("name"))), catalog.build(kind, node))


def _recipe(config: Mapping[str, Any], catalog: Catalog, model: Model) -> Recipe:
    grid = read_grid(config["grid"], catalog)
    node = config["scheduler"]
    if node["name"] == DIFFUSERS:
        scheduler: Any = find_class(node["_target_"] or _own_class(model))
        options = {key: value for key, value in node.items() if key not in ("name", "_target_")}
    else:
        bound = _build(catalog, "scheduler", node)
        scheduler, options = bound.func, bound.keywords
    return Recipe(scheduler, grid.steps(config["steps"]), model.training, grid, options, model)


def _own_class(model: Model) -> str:
    """The scheduler class of the checkpoint."""
    name = model.training.scheduler_config.get("_class_name")
    if name is None:
        raise InputError(f"model={model.id} comes with no scheduler of its own: add scheduler._target_=diffusers....")
    return f"diffusers.{name}"


def _sampler(recipe: Recipe) -> Sampler:
    sampler = recipe.sampler
    ours = getattr(recipe.scheduler, "__module__", "").startswith("diffexp.")  # errors of a plugin carry file and line
    if isinstance(sampler, Direct) and isinstance(sampler.cause, FloatingPointError):
        if not sampler.is_finite:
            name = sampler.method.name
            raise InputError(f"{name} gives {sampler.cause} with these options, steps and grid; change one")
    elif ours and isinstance(sampler, Direct) and isinstance(sampler.cause, ArithmeticError):
        raise InputError(f"{sampler.method.name} cannot be computed with these options, steps and grid; change one")
    if isinstance(sampler, Plan):
        _check_finite(sampler)
        if isinstance(recipe.scheduler, type) and not recipe.grid.explicit:
            _warn_of_foreign_timesteps(sampler, recipe.training.schedule)
    return sampler


def _check_finite(plan: Plan) -> None:
    for step, row in enumerate(plan.rows):
        if not all(map(math.isfinite, (*row.x, *row.m, *row.z, *itertools.chain(*row.d)))):
            raise InputError(f"{plan.name} gives NaN at step {step} with these options, steps and grid; change one")


def _warn_of_foreign_timesteps(plan: Plan, schedule: Schedule) -> None:
    """Warn of classes of diffusers whose timesteps are for one network only (IPNDM 0 to 1, CM 250 log sigma)."""
    timesteps = [row.level.timestep for row in plan.rows]
    low, high = schedule.timestep_range
    slack = 1e-3 * (high - low)
    if not low - slack <= min(timesteps) <= max(timesteps) <= high + slack or (
        high > 1 and len(timesteps) > 1 and max(timesteps) <= 1
    ):
        shown = f"{min(timesteps):g}..{max(timesteps):g}"
        log.warning("%s passes timesteps %s to the network; it was trained on %g..%g", plan.name, shown, low, high)


def read_grid(node: Mapping[str, Any], catalog: Catalog) -> Grid:
    """The timestep schedule of a config node; ``timesteps`` or ``sigmas`` in it override its name."""
    name = node["name"]
    make = None if name == "auto" else _build(catalog, "grid", node)
    return Grid(name, make, node.get("timesteps"), node.get("sigmas"))
