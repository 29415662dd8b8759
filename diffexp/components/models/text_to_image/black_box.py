"""A text-to-image pipeline of diffusers as a black box, for ``loop=pipeline``.

``diffexp.components.models.text_to_image.latent`` has the families whose network can be evaluated directly.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting
from torch import Tensor

from diffexp.components.models.base import Condition, ModelBase, Request
from diffexp.errors import InputError
from diffexp.plan.training import Training

WITH_IMAGE, WITH_MASK = "image-to-image", "inpainting"
"""Tasks besides text-to-image."""


@dataclass(eq=False)
class TextToImage(ModelBase):
    """A whole pipeline. Its samples are the finished images, as pixels in [-1, 1]."""

    id: str
    pipe: Any
    """A diffusers pipeline, in place and in evaluation mode."""
    training: Training
    device: torch.device
    dtype: torch.dtype
    height: int
    width: int
    """Of the images, in pixels."""
    hash_weights: Callable[[], str]
    clip_skip: int | None = None
    """Last layers of the text encoder that are left out; None: as the pipeline does by itself."""
    black_box_reason: str = ""
    """Why its network cannot be evaluated directly, for messages."""
    feature_domain: str | None = None
    """The kind of images that it generates, where some features describe just those; see ``metric=fid``."""
    usual_scale: float | None = None
    """Its default guidance scale; None: that of the pipeline's class."""
    _tasks: dict[str, Any] = field(default_factory=dict)

    idle: ClassVar[Sequence[str]] = ("prior_steps", "prior_guidance_scale")
    """Options of ``model=pipeline`` that this family does not use."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.picture_shape

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images."""
        return (3, self.height, self.width)

    @property
    def weights_sha256(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return self.hash_weights()

    @property
    def guidance_scale(self) -> float:
        """The default of the model, or of its pipeline."""
        if self.usual_scale is not None:
            return self.usual_scale
        parameter = inspect.signature(self.pipe.__call__).parameters.get("guidance_scale")
        return float(parameter.default) if parameter and parameter.default is not None else 1.0

    def conditions(self, request: Request, indices: Sequence[int]) -> Condition:
        """Captions alone: the pipeline encodes the prompts itself."""
        return Condition(positive={}, negative=None, captions=self.prompts(request, indices))

    def prompts(self, request: Request, indices: Sequence[int]) -> list[str]:
        """One prompt per sample.

        Raises:
            InputError: there is no prompt, or a label.
        """
        if request.label is not None:
            raise InputError(f"label={request.label}: model={self.id} takes no label; write prompt=...")
        prompts = cycled(request.prompt, indices)
        if prompts is None:
            raise InputError(f'model={self.id} needs a text: add prompt="an astronaut riding a horse"')
        return prompts

    def predict(self, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        raise InputError(f"model={self.id} runs as a whole only ({self.black_box_reason}): add loop=pipeline")

    def encode(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return self.predict(images, images, Condition({}, None, []))

    def arguments(self, request: Request, indices: Sequence[int], condition: Condition) -> dict[str, Any]:
        """Arguments of the pipeline's call for the condition."""
        negative = cycled(request.negative_prompt, indices)
        more = {"negative_prompt": negative, "clip_skip": self.clip_skip}
        return {"prompt": condition.captions} | {key: value for key, value in more.items() if value is not None}

    def pictures(self, output: Any) -> Tensor:
        """Samples [B, *shape] from what the pipeline's call returned for ``output_type``."""
        return output.images.float() * 2 - 1

    output_type = "pt"
    """The argument ``output_type`` of the pipeline's call."""

    def task(self, name: str) -> Any:
        """The pipeline of the same parts for another task.

        Raises:
            InputError: diffusers has none for this family.
        """
        if name not in self._tasks:
            self._tasks[name] = self._make_task(name)
            self._tasks[name].set_progress_bar_config(disable=True)
        return self._tasks[name]

    def _make_task(self, name: str) -> Any:
        auto = AutoPipelineForImage2Image if name == WITH_IMAGE else AutoPipelineForInpainting
        try:
            return auto.from_pipe(self.pipe)
        except ValueError as error:
            reason = f"diffusers has no {name} pipeline for {type(self.pipe).__name__}"
            raise InputError(f"model={self.id}: {reason}; leave loop.image out") from error


def cycled(texts: str | Sequence[str] | None, indices: Sequence[int]) -> list[str] | None:
    """The text of every sample; a list is cycled."""
    if texts is None:
        return None
    several = [texts] if isinstance(texts, str) else list(texts)
    return [several[i % len(several)] for i in indices]
