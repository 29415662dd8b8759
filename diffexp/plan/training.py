"""How a network was trained, and the part of the model interface that this answers."""

from dataclasses import dataclass
from typing import Any

from diffexp.plan.levels import Schedule
from diffexp.plan.predictions import Clip, DynamicThreshold, Target


@dataclass(frozen=True)
class Training:
    """How a network was trained and wants to be sampled."""

    schedule: Schedule
    prediction: Target
    clip: Clip | DynamicThreshold | None
    spacing: str
    steps_offset: int
    config: dict[str, Any]
    """The checkpoint's scheduler config, but for a variance that the network learned, which no scheduler here reads."""


class Trained:
    """The part of the model interface that ``training`` answers."""

    training: Training

    @property
    def schedule(self) -> Schedule:
        return self.training.schedule

    @property
    def prediction(self) -> Target:
        return self.training.prediction

    @property
    def clip(self) -> Clip | DynamicThreshold | None:
        return self.training.clip

    @property
    def scheduler_config(self) -> dict[str, Any]:
        return self.training.config

    @property
    def spacing(self) -> str:
        return self.training.spacing

    @property
    def steps_offset(self) -> int:
        return self.training.steps_offset
