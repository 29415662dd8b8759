"""A pipeline of diffusers, evaluated through its own call.

``diffexp.components.models.text_to_image.latent`` has the families whose network is evaluated directly, so that calls
for several runs can be joined and guidance is free.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting
from torch import Tensor

from diffexp.components.media import Media
from diffexp.components.models.base import Condition, ModelBase, Request
from diffexp.components.models.text_to_image.arguments import (
    arguments_of,
    blank_images,
    cycled,
    default_number,
    lacking,
    read_given,
)
from diffexp.components.models.text_to_image.cache import reset_caches
from diffexp.components.models.text_to_image.levels import of_pipeline
from diffexp.components.models.text_to_image.paused_call import (
    Called,
    PausedCall,
    denoisers,
    is_distilled,
    single_noise,
    with_config,
)
from diffexp.components.pipeline_output import decoded, media_of_pipeline, unpacked
from diffexp.errors import InputError
from diffexp.plan.levels import CLEAN, input_level
from diffexp.plan.training import Training

WITH_IMAGE, WITH_MASK = "image-to-image", "inpainting"
"""Tasks besides text-to-image."""


@dataclass(eq=False)
class TextToImage(ModelBase):
    """A whole pipeline. Its samples are what it steps: latents, in its own layout."""

    id: str
    pipe: Any
    """A diffusers pipeline, in place and in evaluation mode."""
    trained: Training
    """By the config of its scheduler alone."""
    device: torch.device
    dtype: torch.dtype
    height: int | None
    width: int | None
    """Of the images, in pixels; None where the pipeline takes no size."""
    hash_weights: Callable[[], str]
    clip_skip: int | None = None
    """Last layers of the text encoder that are left out; None: as the pipeline does by itself."""
    feature_domain: str | None = None
    """The kind of images that it generates, where some features describe just those; see ``metric=fid``."""
    usual_scale: float | None = None
    """Its default guidance scale; None: that of the pipeline's class."""
    _request: Request = field(default_factory=Request)
    """The last one, with which calls are tried out."""
    _prepared: dict[Any, tuple[Mapping[str, Any], Tensor]] = field(default_factory=dict)

    idle: ClassVar[Sequence[str]] = ("prior_steps", "prior_guidance_scale")
    """Options of ``model=pipeline`` that this family does not use."""
    guides = True
    """Whether guidance is part of its predictions."""

    @property
    def training(self) -> Training:  # pyright: ignore[reportIncompatibleVariableOverride]
        """With the levels that the pipeline makes when it is called."""
        return self._training

    @cached_property
    def _training(self) -> Training:
        return of_pipeline(self.trained, self._prepare)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._prepare(2, {})[1].shape[1:])

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images."""
        if self.height is None or self.width is None:
            raise InputError(f"model={self.id} draws no images")
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
        return default_number(self.pipe, "guidance_scale", 1.0)

    def conditions(self, request: Request, indices: Sequence[int]) -> Condition:
        """The condition is the pipeline's call itself, which encodes the prompts."""
        self._request = request
        condition = Condition({}, None, self.prompts(request, indices))
        read_given(self.pipe, request.arguments, lambda: self.picture_shape, range(1))  # names and files are there

        def draw(generators: Sequence[torch.Generator]) -> Condition:
            def make() -> PausedCall:
                return self.call(self.pipe, request, self._from_noise(request, indices, condition, generators))

            return Called({}, None, condition.captions, make=make)

        return replace(condition, draw=draw)

    def passes(self, request: Request) -> int:
        """Forward passes of an evaluation, as far as the scale of the guidance decides them."""
        takes = "guidance_scale" in inspect.signature(self.pipe.__call__).parameters and not is_distilled(self.pipe)
        return 2 if takes and request.guidance.get("guidance_scale", self.guidance_scale) > 1 else 1

    def without_guidance(self, request: Request) -> Request:
        """The same request with predictions of the network itself."""
        scale = {} if is_distilled(self.pipe) else {"guidance_scale": 1.0, "guidance_rescale": 0.0}
        others = {name: value for name, value in request.arguments.items() if name != "true_cfg_scale"}
        return replace(request, guidance={**request.guidance, **scale}, negative_prompt=None, arguments=others)

    def prompts(self, request: Request, indices: Sequence[int]) -> list[str]:
        """One prompt per sample.

        Raises:
            InputError: there is no prompt, or a label.
        """
        if request.label is not None:
            raise InputError(f"label={request.label}: model={self.id} takes no label; write prompt=...")
        prompts = cycled(request.prompt, indices)
        if prompts is None and "prompt" not in inspect.signature(self.pipe.__call__).parameters:
            return ["unconditional"] * len(indices)
        if prompts is None:
            raise InputError(f'model={self.id} needs a text: add prompt="an astronaut riding a horse"')
        return prompts

    def predict(self, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The prediction of the whole pipeline, all samples at the same timestep."""
        if not isinstance(condition, Called) or len(u) != len(condition.captions):
            raise InputError(f"model={self.id} is guided by its own pipeline; choose guidance=cfg or none")
        self.pipe._current_timestep = t[0]  # as caches read it
        answer = condition.call.predict(u, self._time(t[0]))
        output = answer.output.to(torch.promote_types(answer.output.dtype, torch.float32))
        if self._is_inverted:
            output = -output
        if answer.edited is not None:
            output = self._at(u, answer.edited, output, float(t[0]))
        return output if torch.is_inference_mode_enabled() else output.clone()

    @property
    def _is_inverted(self) -> bool:
        """Whether its time runs from noise at 0 to data (``invert_sigmas``), so that velocities have the other sign."""
        return bool(self.pipe.scheduler.config.get("invert_sigmas"))

    def _time(self, timestep: Any) -> Any:
        return self.schedule.num_train_timesteps - timestep if self._is_inverted else timestep

    def _at(self, u: Tensor, edited: Tensor, output: Tensor, timestep: float) -> Tensor:
        """The prediction at ``u`` with the x0 estimate of the one that was made at ``edited``."""
        level = input_level(self.training.schedule, timestep)
        p, q = self.prediction.clean(level)
        x0 = p * edited.to(u.dtype) + q * output
        return self.prediction.output(level, x0, (u - level.alpha * x0) / level.sigma)

    def decode(self, x: Tensor) -> Tensor:
        """Samples without a call that they belong to."""
        request = replace(self._request, steps=2, prompt=self._request.prompt or "", negative_prompt=None)
        streams = [torch.Generator().manual_seed(0) for _ in x]
        condition = self.conditions(request, range(len(x))).drawn(streams)
        return self.finish(x, condition)

    def finish(self, x: Tensor, condition: Condition) -> Tensor:
        return decoded(condition.call.finish(x)) if isinstance(condition, Called) else self.decode(x)

    def samples(self, x: Tensor, call: PausedCall) -> Tensor:
        """Samples ``x`` that were drawn in a call, which ``decode`` or this ends."""
        return x

    def encode(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Images as latents, by the family's image-to-image pipeline, which adds no noise to them here."""
        pipe, request = self.task(WITH_IMAGE), replace(self._request, prompt="", negative_prompt=None, steps=2)
        condition = Condition({}, None, [""] * len(images))
        arguments = self.arguments_for(pipe, request, range(len(images)), condition, generators)
        given = {"image": images.to(self.device), "strength": 1.0}
        clean = [replace(CLEAN, timestep=timestep) for timestep in self.schedule.timestep_range[::-1]]
        return PausedCall(pipe, arguments | given, clean, self.schedule).start

    def _from_noise(
        self, request: Request, indices: Sequence[int], condition: Condition, generators: Sequence[torch.Generator]
    ) -> dict[str, Any]:
        """Arguments of the call for samples from noise alone, also of a pipeline that begins with an image."""
        takes = "strength" in inspect.signature(self.pipe.__call__).parameters
        whole = {"strength": 1.0} if takes else {}
        return self.arguments_for(self.pipe, request, indices, condition, generators, **whole)

    def arguments_for(
        self,
        pipe: Any,
        request: Request,
        indices: Sequence[int],
        condition: Condition,
        generators: Sequence[torch.Generator],
        **given: Any,
    ) -> dict[str, Any]:
        """Arguments of the call of ``pipe``, which is that of the model or one for another task.

        Raises:
            InputError: it takes no such argument.
        """
        own = read_given(pipe, request.arguments, lambda: self.picture_shape, indices)
        offered = {
            **self.arguments(request, indices, condition),
            **request.guidance,
            "num_inference_steps": request.steps,
            "height": self.height,
            "width": self.width,
            "generator": list(generators),
            "output_type": self.output_type,
        }
        return arguments_of(pipe, offered, own | given, self.guidance_scale)

    def arguments(self, request: Request, indices: Sequence[int], condition: Condition) -> dict[str, Any]:
        """Arguments of the pipeline's call for the condition."""
        negative = cycled(request.negative_prompt, indices)
        return {"prompt": condition.captions, "negative_prompt": negative, "clip_skip": self.clip_skip}

    output_type = "np"  # of tensors not all pipelines change the range
    """The argument ``output_type`` of the pipeline's call."""

    @property
    def media(self) -> Media | None:
        """What its samples are, where they are no images."""
        return media_of_pipeline(self.pipe, self._request.arguments)

    def laid_out(self, x: Tensor) -> Tensor:
        """Samples as images of latents, where the pipeline packs them as tokens."""
        return unpacked(self.pipe, x, self.height, self.width)

    def task(self, name: str) -> Any:
        """The pipeline of the same parts for another task.

        Raises:
            InputError: diffusers has none for this family.
        """
        takes = inspect.signature(self.pipe.__call__).parameters
        if {"image", "strength"} <= takes.keys() and ("mask_image" in takes) == (name == WITH_MASK):
            return self.pipe  # made for it
        auto = AutoPipelineForImage2Image if name == WITH_IMAGE else AutoPipelineForInpainting
        try:
            return auto.from_pipe(self.pipe)
        except ValueError as error:
            reason = f"diffusers has no {name} pipeline for {type(self.pipe).__name__}"
            raise InputError(f"model={self.id}: {reason}; leave loop.image out") from error

    def call(self, pipe: Any, request: Request, arguments: Mapping[str, Any]) -> PausedCall:
        """The call of ``pipe``, which is that of the model or one for another task, at the levels of a request.

        Raises:
            InputError: it refuses its arguments.
        """
        reset_caches(denoisers(pipe))
        levels = [replace(level, timestep=self._time(level.timestep)) for level in request.levels]
        try:
            with single_noise(self.dtype):
                return PausedCall(pipe, arguments, levels, self.schedule, request.reads_variance)
        except InputError as error:
            raise lacking(pipe, arguments, error) from error

    def _prepare(self, steps: int, config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Tensor]:
        """Keywords of ``set_timesteps`` and the start sample of a call, under these entries of a scheduler's config."""
        key = steps, str(sorted(config.items(), key=str))
        if key not in self._prepared:
            request = replace(self._request, steps=steps, prompt=self._request.prompt or "", negative_prompt=None)
            condition = Condition({}, None, self.prompts(request, range(1)))
            arguments = self._from_noise(request, range(1), condition, [torch.Generator().manual_seed(0)])
            pipe = with_config(self.pipe, config)
            try:
                call = PausedCall(pipe, arguments, schedule=self.trained.schedule)
            except InputError:  # without the images that it needs, which a loop may have
                blank = blank_images(pipe, self.picture_shape) if self.height else {}
                if not blank.keys() - arguments.keys():
                    raise
                call = PausedCall(pipe, blank | arguments, schedule=self.trained.schedule)
            self._prepared[key] = call.scheduler.visited, call.start
        return self._prepared[key]
