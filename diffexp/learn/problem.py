"""What a plan is learned for: a run's model under its guidance, noises, and their accurate solutions."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffexp.components.models.base import EncodesImages, Request
from diffexp.errors import InputError
from diffexp.experiment.batches import make_batch
from diffexp.experiment.build import Components
from diffexp.experiment.monitor import Evaluator
from diffexp.experiment.reference import Reference
from diffexp.learn.rollout import KEPT_BYTES, Network, bytes_kept, rollout
from diffexp.learn.settings import Settings
from diffexp.learn.table import Table, table_of
from diffexp.plan.compile import Sampler
from diffexp.plan.table import Plan

log = logging.getLogger(__name__)

SEEDS = {"train": 1_000_003, "valid": 2_000_003, "test": 3_000_017}
"""Added to the seed of the run, so that none of these noises are those of a usual run, or of each other."""
FEWEST_PROMPTS = 4
"""Of so many prompts and more, every fourth is held out for the comparison at the end."""


@dataclass(frozen=True)
class Noises:
    """Start noises with their conditions and accurate solutions."""

    start: Tensor
    """[n, *shape], standard normal."""
    network: Network
    truth: Tensor
    """[n, *shape], float32; empty where there are no solutions."""
    draws: Callable[[], Tensor]
    """The next noise of every sample, for samplers that draw it."""

    def batch(self, rows: Sequence[int]) -> "Noises":
        """Some of them; draws are fresh for all of them."""
        truth = self.truth[[*rows]] if len(self.truth) else self.truth
        return Noises(self.start[[*rows]], self.network.of(rows), truth, lambda: self.draws()[[*rows]])

    def batches(self, size: int) -> Iterator["Noises"]:
        """All of them, ``size`` at a time."""
        if len(self.start) <= size:
            yield self
            return
        for first in range(0, len(self.start), size):
            yield self.batch(range(first, min(first + size, len(self.start))))


@dataclass(frozen=True, eq=False)
class Problem:
    """A run whose plan is to be replaced by a better one at the same cost.

    Args:
        run: its components.
        config: its config.
    """

    run: Components
    config: Mapping[str, Any]
    settings: Settings

    @property
    def base(self) -> Plan:
        """The hand-made plan that learning starts from.

        Raises:
            InputError: the scheduler is no table, or the run does more than denoise.
        """
        if not isinstance(self.run.sampler, Plan):
            raise InputError(
                f"scheduler={self.config['scheduler']['name']} is no table of numbers: choose another start"
            )
        if not self.run.from_noise:
            raise InputError(f"loop={self.config['loop']['name']} does more than denoise: learn with loop=denoise")
        return self.run.sampler

    def table(self) -> Table:
        """The start of learning; see ``table_of``."""
        return table_of(self.base, self.run.model.training)

    @cached_property
    def train(self) -> Noises:
        return self.noises("train", self.settings.train)

    @cached_property
    def valid(self) -> Noises:
        return self.noises("valid", self.settings.valid)

    def noises(self, part: str, count: int, solver: Sampler | None = None) -> Noises:
        """The noises of a part with the solutions from where ``solver``, by default the base, begins.

        Raises:
            InputError: there are no accurate solutions.
        """
        run, config = self.of_part(part)
        reference = Reference(replace(run, sampler=self.deterministic_base if solver is None else solver), config)
        if reference.missing:
            raise InputError(f"there is nothing to learn from: {reference.missing}")
        indices = range(count)
        batch = make_batch(run, config["seed"], indices, Evaluator(run.model))
        size, truth = int(self.config["batch_size"]), list[Tensor]()
        for first in range(0, count, size):
            truth.append(reference(indices[first : first + size]))
        start, known = batch.noise(), Network(run.predict, batch.condition)
        own = known.of([0]).differentiable(start[:1], run.model.training.schedule.timestep_range)
        network = replace(known, difference=own.difference)
        return Noises(start, network, torch.cat(truth).to(run.model.device), batch.noise)

    @cached_property
    def deterministic_base(self) -> Plan:
        """A plan without noise that begins where the base does."""
        base = self.base
        rows = tuple(replace(row, z=()) for row in base.rows)
        return replace(base, rows=rows, start_z=())

    def of_part(self, part: str) -> tuple[Components, dict[str, Any]]:
        """The run and its config with the seed and the prompts of a part."""
        prompts = _prompts_of(self.run.request.prompt, held_out=part == "test")
        request = Request(prompts, self.run.request.negative_prompt, self.run.request.label)
        config = {**self.config, "seed": int(self.config["seed"]) + SEEDS[part], "prompt": prompts}
        return replace(self.run, request=request), config

    @cached_property
    def recompute(self) -> bool:
        """Whether activations of all evaluations together are too many to keep."""
        rows = range(min(2, len(self.train.start)))
        few = self.train.batch(rows)
        one = bytes_kept(self.table(), few.network, few.start) / len(rows)
        return one * self.settings.batch * self.base.nfe > KEPT_BYTES

    def check_gradient(self) -> None:
        """
        Raises:
            InputError: the network has no gradient, as where a pipeline is called as a whole.
        """
        few = self.train.batch([0])
        u = few.start.detach().clone().requires_grad_()
        if not few.network(u, torch.tensor(self.base.levels[0].timestep)).requires_grad:
            known = f"model={self.run.model.id} has no gradient"
            raise InputError(
                f"{known}: choose method=grid, least_squares or spectrum instead of {self.settings.method}"
            )

    def samples(self, table: Table, noises: Noises) -> Tensor:
        """The samples of a table [n, *shape], differentiable."""
        return rollout(table, noises.network, noises.start, noises.draws, recompute=self.recompute)

    @torch.no_grad()
    def score(self, table: Table) -> float:
        """Mean peak signal-to-noise ratio in dB on the noises that learning has not seen."""
        size = int(self.config["batch_size"])
        found = [decibels(self, self.samples(table, part), part.truth) for part in self.valid.batches(size)]
        return torch.cat(found).mean().item()

    @cached_property
    def bounded(self) -> bool:
        """Whether samples are pixels in [-1, 1], outside of which images are clipped."""
        model = self.run.model
        return len(model.shape) == 3 and not isinstance(model, EncodesImages)


def decibels(problem: Problem, x: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each sample, (B,): of pixels, or of latents as if their range were [-1, 1]."""
    error = differences(problem, x, truth).square().mean(dim=1).clamp(min=1e-12)
    return 10 * torch.log10(4 / error)


def differences(problem: Problem, x: Tensor, truth: Tensor) -> Tensor:
    """Differences of each sample from its solution, (B, numbers of a sample), of pixels as they are shown."""
    if problem.bounded:
        x, truth = x.clamp(-1, 1), truth.clamp(-1, 1)
    return (x - truth).flatten(1)


def _prompts_of(prompt: str | list[str] | None, *, held_out: bool) -> str | list[str] | None:
    if not isinstance(prompt, list) or len(prompt) < FEWEST_PROMPTS:
        return prompt
    return [text for i, text in enumerate(prompt) if (i % 4 == 3) == held_out]
