"""What the parity tests share: a scheduler's training, and the distance between two tables."""

from dataclasses import replace
from functools import cache
from typing import Any

from diffexp.catalog.discover import Catalog, discover
from diffexp.components.checkpoints.scheduler_config import read_training
from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import build_sampler
from diffexp.plan.difference import unrolled_difference
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

EXACT = 1e-12
SINGLE = 2e-6
"""Where diffusers keeps its sigmas in float32."""

PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "linspace", "trailing")
BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "trained": {"trained_betas": [0.001 * (1 + k % 7) for k in range(1000)]},
    "few": {"beta_schedule": "linear", "beta_start": 0.001, "beta_end": 0.2, "num_train_timesteps": 100},
}


def training_of(scheduler: Any) -> Training:
    """How a model was trained, read from a scheduler's config as from a checkpoint's."""
    config = {"_class_name": type(scheduler).__name__, **scheduler.config}
    return replace(read_training(config, "test"), scheduler_config=config)


@cache
def catalog() -> Catalog:
    """The options that there are; found once, where ``diffexp.compile`` looks anew every time."""
    return discover()


def compiled(scheduler: Any, steps: int, training: Training, grid: str = "auto", **options: Any) -> Plan:
    """The table of a function, or of a class or object of diffusers; ``auto`` is the model's own grid."""
    make = None if grid == "auto" else catalog().build("grid", {"name": grid})
    sampler = build_sampler(scheduler, steps=steps, training=training, grid=Grid(grid, make), options=options)
    assert isinstance(sampler, Plan), sampler
    return sampler


def difference(
    name: str, theirs: Any, steps: int, spacing: str, theirs_options: dict[str, Any] | None = None, **options: Any
) -> float:
    """The native scheduler ``name`` against the object of diffusers, on the grid that both call ``spacing``.

    Equal tables are equal methods. Methods with a memory can also be equal with other tables.
    """
    training, scheduler = training_of(theirs), catalog().build("scheduler", {"name": name}).func
    ours = compiled(scheduler, steps, training, spacing, **options)
    other = compiled(theirs, steps, training, **(theirs_options or {}))
    return min(ours.difference(other), unrolled_difference(ours, other))
