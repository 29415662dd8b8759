"""Training of a network: everything that a scheduler needs to know of a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffexp.plan.levels import Schedule
from diffexp.plan.predictions import Clip, DynamicThreshold, Prediction, Target


@dataclass(frozen=True)
class Training:
    """Noise schedule and prediction of a trained network, and its default timestep schedule."""

    schedule: Schedule
    prediction: Target = Prediction.EPSILON
    """What the network's output stands for."""
    clip: Clip | DynamicThreshold | None = None
    """Clipping of the x0 estimate, by the checkpoint's scheduler config."""
    scheduler_config: Mapping[str, Any] = field(default_factory=dict)
    """The checkpoint's own scheduler config, for schedulers that are diffusers classes; empty if there is none."""
    spacing: str = "leading"
    """Name of the default timestep schedule: linspace, leading, trailing, karras, exponential or flow."""
    steps_offset: int = 0
    """Offset of the leading timestep schedule."""
    learned_variance: str | None = None
    """How the network predicts a variance too (``learned_range``), which no plan reads; None: it predicts none."""
    set_timesteps: Callable[[int, Mapping[str, Any]], Mapping[str, Any]] | None = None
    """(steps, a scheduler's config) -> keywords that the checkpoint's pipeline passes to its ``set_timesteps``.

    ``mu`` shifts the levels by the size of the image; ``sigmas`` are levels before that shift. None: no keywords.
    """
