"""``grid=auto``: a native scheduler visits the levels that its class in diffusers visits with the same checkpoint."""

import itertools
from dataclasses import replace
from typing import Any

import diffusers
import pytest

from diffexp.certify.equivalents import EQUIVALENTS, SINGLE
from diffexp.components.checkpoints.scheduler_config import read_training
from diffexp.plan.difference import unrolled_difference
from diffexp.plan.training import Training
from tests.parity.common import catalog, compiled

# What hubs have: Stable Diffusion 1.5's config says nothing about its spacing, and each class has a default of its own.
LATENT = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "set_alpha_to_one": False,
}
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "silent": {"_class_name": "PNDMScheduler", **LATENT},
    "leading": {"_class_name": "PNDMScheduler", **LATENT, "timestep_spacing": "leading"},
    "linspace": {"_class_name": "DDIMScheduler", **LATENT, "timestep_spacing": "linspace"},
    "trailing": {"_class_name": "EulerDiscreteScheduler", **LATENT, "timestep_spacing": "trailing"},
    "pixels": {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
}
LOOSE = {"dpm2_ancestral": 2e-4}
"""Differences of float32 squares in its class."""
PAIRS = [
    (twin, checkpoint)
    for twin, checkpoint in itertools.product(EQUIVALENTS, CHECKPOINTS)
    if not twin.difference and twin.native != "lcm" and "eta" not in twin.options
    # On linspace the class of PNDM lands beside its own timesteps; without set_alpha_to_one it ends above clean.
    if not (twin.native == "pndm" and checkpoint in ("linspace", "pixels"))
]


def training_of(config: dict[str, Any]) -> Training:
    return replace(read_training(config, "test"), clip=None, scheduler_config=config)


@pytest.mark.parametrize(
    ("twin", "checkpoint"), PAIRS, ids=[f"{twin.native}-{len(twin.options)}-{checkpoint}" for twin, checkpoint in PAIRS]
)
def test_auto_is_what_the_class_visits(twin: Any, checkpoint: str) -> None:
    training, native = training_of(CHECKPOINTS[checkpoint]), catalog().build("scheduler", {"name": twin.native}).func
    config = {key: value for key, value in CHECKPOINTS[checkpoint].items() if key != "_class_name"}
    unclipped = {"clip_sample": False} if twin.native in ("ddim", "ddpm") else {}
    theirs = getattr(diffusers, twin.cls).from_config(config, **twin.theirs, **unclipped)
    for steps in (10, 25):
        ours, other = compiled(native, steps, training, **twin.options), compiled(theirs, steps, training)
        assert [row.level.timestep for row in ours.rows] == pytest.approx(
            [row.level.timestep for row in other.rows], abs=1e-3
        )
        if twin.native == "deis":  # its class leaves the noise of the first training timestep in
            ours, other = (replace(plan, rows=plan.rows[:-1]) for plan in (ours, other))
        assert min(ours.difference(other), unrolled_difference(ours, other)) < LOOSE.get(twin.native, SINGLE)


def test_a_spare_level_is_there_up_to_the_last_timestep() -> None:
    training = training_of(CHECKPOINTS["linspace"])
    native = catalog().build("scheduler", {"name": "dpmpp_2m"}).func
    for steps in (1, 2, 999, 1000):
        assert compiled(native, steps, training).nfe == steps
