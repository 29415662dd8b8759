"""The interface of loops: a batch of samples, and the run that it belongs to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from diffexp.components.guidance.base import Predict
from diffexp.components.models.base import Condition, Model, Request
from diffexp.components.sampler import Recipe
from diffexp.plan.compile import Sampler
from diffexp.plan.execute import Network
from diffexp.plan.levels import Level

ParallelNetwork = Callable[[Tensor, Sequence[Level]], Tensor]
"""``(u [levels, batch, *shape], levels) -> raw output`` in the same shape, in one call of the network."""


class Run(Protocol):
    """The part of a run that all its batches share."""

    @property
    def model(self) -> Model: ...

    @property
    def sampler(self) -> Sampler: ...

    @property
    def predict(self) -> Predict:
        """The model under guidance."""
        ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def request(self) -> Request: ...


class Monitor(Protocol):
    """Hands out networks and observes their evaluations."""

    def network(self, predict: Predict, condition: Condition) -> Network: ...

    def network_at_once(self, predict: Predict, condition: Condition) -> ParallelNetwork: ...

    def expect_evaluations(self, nfe: int) -> None:
        """Announce the number of evaluations per sample.

        Raises:
            InputError: more than the run's ``max_nfe``.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """Some samples of a run, ready to be generated.

    A loop plugin is a function ``(batch, *, options…) -> x`` marked ``@diffexp.loop``; x has shape
    [len(batch.indices), *model.shape]. ``@diffexp.loop(solves_from_noise=True)`` marks one that takes the start noise
    to the sample by ``batch.sampler`` alone, so that accurate solutions exist to compare with.
    """

    run: Run
    indices: Sequence[int]
    """Indices of the samples in the run."""
    condition: Condition
    noise: Callable[[], Tensor]
    """The next standard normal noise of every sample, [len(indices), *shape]; the first is the start noise."""
    generators: Sequence[torch.Generator]
    """The streams of ``noise``, one per sample, on the CPU."""
    monitor: Monitor

    @property
    def model(self) -> Model:
        return self.run.model

    @property
    def sampler(self) -> Sampler:
        return self.run.sampler

    @property
    def recipe(self) -> Recipe:
        """What ``sampler`` is built from, for loops that need samplers for some of its steps."""
        return self.run.recipe

    @property
    def request(self) -> Request:
        """Prompts and labels in the user's words."""
        return self.run.request

    @cached_property
    def network(self) -> Network:
        """The guided, conditioned model, ``(u, level) -> raw output``; its evaluations are observed."""
        return self.monitor.network(self.run.predict, self.condition)

    @cached_property
    def network_at_once(self) -> ParallelNetwork:
        """``network`` at many levels in one call: ``(u [levels, batch, *shape], levels) -> output`` in its shape."""
        return self.monitor.network_at_once(self.run.predict, self.condition)

    def unguided(self, condition: Condition) -> Network:
        """The model without guidance under any condition; its evaluations are observed too."""
        return self.monitor.network(self.run.model.predict, condition)

    def unguided_condition(self, request: Request) -> Condition:
        """The condition of a request for ``unguided``."""
        without = getattr(self.model, "without_guidance", lambda same: same)
        return self.model.conditions(without(request), self.indices).drawn(self.generators)

    def expect(self, nfe: int) -> None:
        """Announce, before the first one, the number of evaluations per sample where it is not ``sampler.nfe``.

        Raises:
            InputError: more than the run's ``max_nfe``.
        """
        self.monitor.expect_evaluations(nfe)
