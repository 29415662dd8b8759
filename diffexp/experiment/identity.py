"""Code and files that determine the samples of a run, as hashes in ``run.json``."""

from collections.abc import Mapping
from typing import Any

from diffexp.catalog.discover import Catalog
from diffexp.experiment.build import Components
from diffexp.experiment.plugin_sources import code_sha256
from diffexp.experiment.provenance import inputs_sha256
from diffexp.plan.table import Plan

CODE = ("model", "guidance", "loop")
"""Kinds whose code affects samples, besides the plan."""


def identity_of(run: Components, config: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """The entries of ``run.json`` that, with the config, determine the samples of a run."""
    plan = run.sampler if isinstance(run.sampler, Plan) else None
    return {
        "device": str(run.model.device),
        "dtype": str(run.model.dtype).removeprefix("torch."),
        "model_id": run.model.id,
        "weights_sha256": run.model.weights_sha256,
        "plan_sha256": plan.sha256 if plan else None,
        "inputs_sha256": inputs_sha256(config),
        "code_sha256": code_sha256(config, catalog, CODE if plan else (*CODE, "scheduler", "grid")),
    }
