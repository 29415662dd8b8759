"""What a loop works with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffexp.components.models.base import Condition, Model, Request
from diffexp.components.sampler import Recipe
from diffexp.plan.compile import Sampler
from diffexp.plan.execute import Network
from diffexp.plan.levels import Level

FROM_NOISE = ("denoise", "paradigms")
"""Loops that take the start noise to the sample by the run's sampler alone."""


@dataclass(frozen=True)
class Batch:
    """Some samples of a run, ready to be drawn.

    A loop plugin is a function ``(batch, *, options…) -> x`` marked ``@diffexp.loop``; x has shape
    [len(batch.indices), *model.shape].
    """

    indices: Sequence[int]
    """Which samples of the run."""
    model: Model
    condition: Condition
    sampler: Sampler
    network: Network
    """The guided, conditioned model: ``(u, level) -> raw output``. Whatever goes through it is watched."""
    network_at_once: Callable[[Tensor, Sequence[Level]], Tensor]
    """The same at many levels in one call: ``(u [levels, batch, *shape], levels) -> raw output`` in that shape."""
    unguided: Callable[[Condition], Network]
    """The model without guidance under any condition, watched too."""
    noise: Callable[[], Tensor]
    """The next standard normal draw of every sample, [len(indices), *shape]; the first is the start noise."""
    generators: Sequence[torch.Generator]
    """The streams that ``noise`` draws from, one a sample, on the CPU."""
    recipe: Recipe
    """What ``sampler`` was made of, for loops that need one for a part of its steps."""
    request: Request
    """What to draw, in the user's words."""
    guidance: str
    """Name of the guidance that ``network`` is under; ``guidance_scale`` and ``guidance_options`` are its own."""
    guidance_scale: float
    guidance_options: Mapping[str, Any]
    seen: Callable[[Tensor, Tensor, Level], None]
    """Watches an evaluation ``(u, raw output, level)`` that does not go through ``network``."""
    expect: Callable[[int], None]
    """Tells, before the first evaluation, how many a sample there will be, where that is not ``sampler.nfe``."""
