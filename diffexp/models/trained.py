"""What a model says of its training where a checkpoint's scheduler config has said it."""

from typing import Any

from diffexp.levels import Schedule
from diffexp.models.training import Training
from diffexp.predictions import Clip, DynamicThreshold, Target


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
