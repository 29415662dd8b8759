"""Accurate solutions from the start noise of a run: what a deterministic sampler would give with endless steps.

Samplers without noise solve the probability-flow ODE of the model (Song et al. 2021, arXiv:2011.13456, eq. 13), whose
solution belongs to the start noise, and to the level at which that is put in: grids begin at different ones. It is
computed with so many steps of a high order that its own error does not matter, and kept on disk, because all runs of a
comparison are held against the same.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from diffexp.components.grids import cosine, exponential
from diffexp.components.grids.choice import Grid
from diffexp.components.models.base import Model
from diffexp.components.sampler import build_sampler
from diffexp.components.schedulers.heun import heun
from diffexp.components.schedulers.unipc import unipc
from diffexp.errors import InputError
from diffexp.experiment.build import Parts
from diffexp.experiment.provenance import inputs_sha256, installed_versions
from diffexp.files import replace_whole
from diffexp.plan.compile import Sampler, sample
from diffexp.plan.levels import Level
from diffexp.plan.noise import SampleNoise
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

log = logging.getLogger(__name__)

STEPS = 64
"""Of UniPC, order 3, even in log sigma: on the embedded model 0.0005 (rms) from 300 steps of DPM-Solver-2."""


@dataclass(frozen=True)
class Start:
    """How a sampler begins."""

    level: Level
    """Of what the network sees first."""
    std: float
    """Standard deviation of that, with nothing but noise in it."""
    draws: int
    """Noise draws on the way to the sample."""


class Reference:
    """The accurate solutions that belong to the samples of a run; called with indices, it computes what is not known.

    Args:
        parts: the run.
        config: its config.
        folder: where solutions are kept, a file each, in a folder for everything that they depend on.
    """

    def __init__(self, parts: Parts, config: Mapping[str, Any], folder: Path | None = None) -> None:
        self._parts = parts
        self._config = config
        self._folder = folder or cache_folder()

    @property
    def missing(self) -> str | None:
        """Why there is no solution to compare with; None if there is."""
        if not self._parts.from_noise:
            return f"loop={self._config['loop']['name']} does not only solve an equation from the start noise"
        if self._parts.stepwise:
            return "the guidance goes by the steps of the run, which an equation does not have"
        if self._start is None or self._start.draws:
            return "the sampler draws noise on its way, so that the start noise does not decide the sample"
        try:
            _ = self._plan
        except InputError as error:
            return f"there is no accurate solver from where the sampler begins: {error}"
        return None

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """Solutions [len(indices), *model.shape], float32 on the CPU."""
        files = {index: self._own_folder / f"{index:06d}.safetensors" for index in indices}
        known = {index: found for index, file in files.items() if (found := _read(file)) is not None}
        unknown = [index for index in indices if index not in known]
        if unknown:
            log.info("computing %d accurate solutions, kept in %s", len(unknown), self._own_folder)
            for index, solution in zip(unknown, self._solve(unknown)):
                known[index] = solution
                _keep(files[index], solution)
        return torch.stack([known[index] for index in indices])

    @cached_property
    def _own_folder(self) -> Path:
        return self._folder / content_key(self._parts, self._config, self._plan)

    @cached_property
    def _start(self) -> Start | None:
        return start_of(self._parts.sampler, self._parts.model)

    @cached_property
    def _plan(self) -> Plan:
        assert self._start is not None
        return accurate_plan(self._parts.model.training, self._start)

    def _solve(self, indices: Sequence[int]) -> Tensor:
        model = self._parts.model
        dtype = torch.promote_types(model.dtype, torch.float32)
        noise = SampleNoise(int(self._config["seed"]), indices, model.shape, model.device, dtype)
        condition = model.conditions(self._parts.request, indices).drawn(noise.generators)

        def network(u: Tensor, level: Level) -> Tensor:
            t = torch.full((len(u),), level.timestep, device=model.device, dtype=dtype)
            return self._parts.predict(u, t, condition).to(u.dtype)

        with torch.inference_mode():
            return sample(self._plan, network, noise.draw() * self._plan.start_std, noise.draw).float().cpu()


def accurate_plan(training: Training, start: Start) -> Plan:
    """The sampler of the solutions: from ``start`` down, clipping as the model asks for.

    Raises:
        InputError: the start is the lowest level there is, or the model clips in a way that is no table.
    """
    highest = training.schedule.sigma_of(training.schedule.at_ratio(start.level.ratio))
    even = Grid("exponential", partial(exponential, sigma_max=highest))
    try:
        plan = build_sampler(unipc, steps=STEPS, training=training, grid=even, options={"order": 3})
    except InputError:  # pure noise has no logarithm of sigma
        ending = Grid("cosine", partial(cosine, sigma_max=None if math.isinf(highest) else highest))
        plan = build_sampler(heun, steps=4 * STEPS, training=training, grid=ending)
    if not isinstance(plan, Plan):
        raise InputError(plan.reason)
    return replace(plan, start_std=plan.start_std * start.std / _start_of_plan(plan).std)


def start_of(sampler: Sampler, model: Model) -> Start | None:
    """How the sampler begins; one that is no plan is tried on a network that says 0, None if that fails."""
    if isinstance(sampler, Plan):
        return _start_of_plan(sampler)
    like, looks, draws = torch.ones(1, *model.shape, dtype=torch.float64), list[tuple[Tensor, Level]](), 0

    def network(u: Tensor, level: Level) -> Tensor:
        looks.append((u, level))
        return torch.zeros_like(u)

    def noise() -> Tensor:
        nonlocal draws
        draws += 1
        return torch.zeros_like(like)

    try:
        sample(sampler, network, like * sampler.start_std, noise)
        first, level = looks[0]
    except Exception as error:
        log.debug("the sampler cannot be tried: %s", error)
        return None
    return Start(level, first.flatten()[0].item(), draws)


def _start_of_plan(plan: Plan) -> Start:
    first = plan.rows[0]
    return Start(first.level, plan.start_std * plan.start_scale * first.scale, plan.draws)


def content_key(parts: Parts, config: Mapping[str, Any], plan: Plan) -> str:
    """A name for what solutions depend on besides the index: model, condition, guidance, seed, start and solver."""
    content = {
        "model": config["model"],
        "weights": parts.model.weights_sha256,
        "dtype": str(parts.model.dtype),
        "guidance": [config["guidance"], parts.guidance_scale],
        **{key: config[key] for key in ("prompt", "negative_prompt", "label", "seed")},
        "plan": plan.sha256,
        "inputs": inputs_sha256(config),
        "code": parts.code_sha256,
        "versions": [installed_versions().get(name) for name in ("diffexp", "diffusers", "torch")],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/diffexp/solutions``; XDG_CACHE_HOME is ``~/.cache`` where it is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffexp" / "solutions"


def _read(file: Path) -> Tensor | None:
    try:
        return load_file(file)["x"]
    except (OSError, SafetensorError, KeyError):
        return None


def _keep(file: Path, solution: Tensor) -> None:
    try:
        with replace_whole(file) as temporary:
            temporary.write_bytes(save({"x": solution.contiguous()}))
    except OSError as error:
        log.debug("the solution could not be kept: %s", error)
