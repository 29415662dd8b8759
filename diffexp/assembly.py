"""From a composed config to built objects."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from diffexp.discovery import Catalog
from diffexp.errors import InputError
from diffexp.loops.base import Batch
from diffexp.metrics.base import Metric
from diffexp.models.base import Model, Request, Runtime
from diffexp.plan import Grid, Sampler, build_sampler
from diffexp.plan.diffusers_class import find_class
from diffexp.tracking.base import Guarded
from diffexp.watch import Predict

DIFFUSERS = "diffusers"
"""The scheduler option that takes any diffusers class as ``_target_``."""


@dataclass(frozen=True)
class Parts:
    """Everything one run is made of."""

    model: Model
    sampler: Sampler
    predict: Predict
    """The model under guidance."""
    loop: Callable[[Batch], torch.Tensor]
    metrics: Mapping[str, Metric]
    tracker: Guarded
    request: Request


def assemble(config: Mapping[str, Any], catalog: Catalog) -> Parts:
    """Build what the config names.

    Raises:
        InputError: anything that is unknown, of the wrong kind, or that does not go together.
    """
    runtime = Runtime(read_device(config["device"]), read_dtype(config["dtype"]), bool(config["compile"]))
    model = catalog.build("model", config["model"])(runtime)
    scale = config["guidance_scale"]
    guidance = catalog.build("guidance", config["guidance"])
    request = Request(config["prompt"], config["negative_prompt"], config["label"])
    model.conditions(request, range(1))  # an impossible prompt or label is refused before anything is computed
    return Parts(
        model=model,
        sampler=_sampler(config, catalog, model),
        predict=guidance(model.predict, model.guidance_scale if scale is None else float(scale)),
        loop=catalog.build("loop", config["loop"]),
        metrics={name: catalog.build("metric", node) for name, node in (config["metric"] or {}).items() if node},
        tracker=Guarded(catalog.build("tracker", config["tracker"])),
        request=request,
    )


def _sampler(config: Mapping[str, Any], catalog: Catalog, model: Model) -> Sampler:
    grid = read_grid(config["grid"], catalog)
    node = config["scheduler"]
    if node["name"] == DIFFUSERS:
        scheduler: Any = find_class(node["_target_"])
        options = {key: value for key, value in node.items() if key not in ("name", "_target_")}
    else:
        bound = catalog.build("scheduler", node)
        scheduler, options = bound.func, bound.keywords
        if isinstance(scheduler, type):
            options = _changed(scheduler, options)
    return build_sampler(scheduler, steps=grid.steps(config["steps"]), spec=model, grid=grid, options=options)


def _changed(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options other than the class's defaults: a default must not override what the checkpoint's config says."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()}
    return {name: value for name, value in options.items() if name not in defaults or value != defaults[name]}


def read_grid(node: Mapping[str, Any], catalog: Catalog) -> Grid:
    """The grid of a config node; ``timesteps`` or ``sigmas`` in it win over its name."""
    name = node["name"]
    make = None if name == "auto" else catalog.build("grid", node)
    return Grid(name, make, node.get("timesteps"), node.get("sigmas"))


def read_device(name: str) -> torch.device:
    """
    Raises:
        InputError: no such device on this machine.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name} is not available here: {str(error).splitlines()[0]}") from error
    return device


def read_dtype(name: str) -> torch.dtype | None:
    """A floating-point type by name; None for ``auto``.

    Raises:
        InputError: not a floating-point type.
    """
    if name == "auto":
        return None
    found = getattr(torch, name, None)
    if not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise InputError(f"dtype={name} is not known; choose auto, float32, float16, bfloat16 or float64")
    return found
