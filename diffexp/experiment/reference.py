"""Accurate solutions from the start noise of a run: the limit of a deterministic sampler for infinitely many steps.

Samplers without noise solve the probability-flow ODE of the model (Song et al. 2021, arXiv:2011.13456, eq. 13), whose
solution depends on the start noise and on its level, which differs between timestep schedules. It is computed with so
many steps of a high order that its own error does not matter, and cached on disk, because all runs of a comparison are
compared with the same.
"""

import hashlib
import json
import logging
import math
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
from diffexp.experiment.batches import make_batch
from diffexp.experiment.build import Components
from diffexp.experiment.monitor import Evaluator
from diffexp.experiment.provenance import inputs_sha256, installed_versions
from diffexp.files import cache_folder, replace_whole
from diffexp.plan.compile import Sampler, sample
from diffexp.plan.levels import Level
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

log = logging.getLogger(__name__)

STEPS = 64
"""Of UniPC, order 3, even in log sigma: on the embedded model 0.0005 (rms) from 300 steps of DPM-Solver-2."""


@dataclass(frozen=True)
class Start:
    """The start of a sampler."""

    level: Level
    """Level of the first input of the network."""
    std: float
    """Standard deviation of that input, which is noise alone."""
    draws: int
    """Noise draws of the whole run, without the start noise."""


class Reference:
    """The accurate solutions for the samples of a run; called with indices, it computes those that are not cached.

    Args:
        run: the components of the run.
        config: its config.
        folder: of all solutions: a folder for everything that they depend on, with a file per solution.
    """

    def __init__(self, run: Components, config: Mapping[str, Any], folder: Path | None = None) -> None:
        self._run = run
        self._config = config
        self._folder = folder or cache_folder("solutions")

    @property
    def missing(self) -> str | None:
        """Why there is no solution to compare with; None if there is."""
        if not self._run.from_noise:
            return f"loop={self._config['loop']['name']} does more than solve an equation from the start noise"
        if self._run.stepwise:
            return "the guidance depends on the steps of the run, which an equation does not have"
        if self._start is None or self._start.draws:
            return "the sampler draws noise at its steps, so that the start noise does not determine the sample"
        try:
            _ = self._plan
        except InputError as error:
            return f"there is no accurate solver from where the sampler begins: {error}"
        return None

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """Solutions [len(indices), *model.shape], float32 on the CPU."""
        folder = self._own_folder
        files = {index: folder / f"{index:06d}.safetensors" for index in indices} if folder else {}
        known = {index: found for index, file in files.items() if (found := _read(file)) is not None}
        unknown = [index for index in indices if index not in known]
        if unknown:
            log.info("computing %d accurate solutions, cached in %s", len(unknown), folder or "no folder")
            known |= dict(zip(unknown, self._solve(unknown)))
            for index in unknown if files else ():
                _store(files[index], known[index])
        return torch.stack([known[index] for index in indices])

    @cached_property
    def _own_folder(self) -> Path | None:
        """None where there is no cache."""
        return self._folder and self._folder / content_key(self._run, self._config, self._plan)

    @cached_property
    def _start(self) -> Start | None:
        return start_of(self._run.sampler, self._run.model)

    @cached_property
    def _plan(self) -> Plan:
        assert self._start is not None
        return accurate_plan(self._run.model.training, self._start)

    def _solve(self, indices: Sequence[int]) -> Tensor:
        batch = make_batch(self._run, int(self._config["seed"]), indices, Evaluator(self._run.model))
        with torch.inference_mode():
            start = batch.noise() * self._plan.start_std
            return sample(self._plan, batch.network, start, batch.noise).float().cpu()


def accurate_plan(training: Training, start: Start) -> Plan:
    """The sampler of the solutions: from ``start`` down, clipping as the model requires.

    Raises:
        InputError: the start is the lowest level there is, or the model clips in a way that no table can.
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
    """The start of a sampler; one that is not a plan is run on a network that returns 0, None if that fails."""
    if isinstance(sampler, Plan):
        return _start_of_plan(sampler)
    like, inputs, draws = torch.ones(1, *model.shape, dtype=torch.float64), list[tuple[Tensor, Level]](), 0

    def network(u: Tensor, level: Level) -> Tensor:
        inputs.append((u, level))
        return torch.zeros_like(u)

    def noise() -> Tensor:
        nonlocal draws
        draws += 1
        return torch.zeros_like(like)

    try:
        sample(sampler, network, like * sampler.start_std, noise)
        first, level = inputs[0]
    except Exception as error:
        log.debug("the sampler cannot run on a stand-in network: %s", error)
        return None
    return Start(level, first.flatten()[0].item(), draws)


def _start_of_plan(plan: Plan) -> Start:
    first = plan.rows[0]
    return Start(first.level, plan.start_std * plan.start_scale * first.scale, plan.draws)


def content_key(run: Components, config: Mapping[str, Any], plan: Plan) -> str:
    """Hash of all that solutions depend on besides the index: model, condition, guidance, seed, start, solver."""
    content = {
        "model": config["model"],
        "weights": run.model.weights_sha256,
        "dtype": str(run.model.dtype),
        "guidance": [config["guidance"], run.guidance_scale],
        **{key: config[key] for key in ("prompt", "negative_prompt", "label", "seed")},
        "plan": plan.sha256,
        "inputs": inputs_sha256(config),
        "code": run.code_sha256,
        "versions": [installed_versions().get(name) for name in ("diffexp", "diffusers", "torch")],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _read(file: Path) -> Tensor | None:
    try:
        return load_file(file)["x"]
    except (OSError, SafetensorError, KeyError):
        return None


def _store(file: Path, solution: Tensor) -> None:
    try:
        with replace_whole(file) as temporary:
            temporary.write_bytes(save({"x": solution.contiguous()}))
    except OSError as error:
        log.debug("the solution could not be cached: %s", error)
