"""Interface of models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from diffexp.components.pixels import from_model_range, to_model_range
from diffexp.errors import InputError
from diffexp.plan.levels import Level, Schedule
from diffexp.plan.predictions import Clip, DynamicThreshold, Target
from diffexp.plan.training import Training


@dataclass(frozen=True)
class Runtime:
    """Device, dtype and compilation of a model."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype | None = None
    """None: the best one for this device and model."""
    compile: bool = False
    """Whether networks go through ``torch.compile``."""


@dataclass(frozen=True)
class Request:
    """Prompt or label that a user gives. Lists are cycled over the samples."""

    prompt: str | list[str] | None = None
    negative_prompt: str | list[str] | None = None
    label: int | str | list[int] | list[str] | None = None
    steps: int = 50
    """Steps of the run, for pipelines that depend on their number."""
    levels: Sequence[Level] = ()
    """Of the run's evaluations, as far as they are known beforehand, for the same."""
    reads_variance: bool = False
    """Whether noise between evaluations is to have the variance that the network predicts."""
    guidance: Mapping[str, float] = field(default_factory=dict)
    """``guidance_scale`` and ``guidance_rescale``, for pipelines that guide by themselves; absent: their defaults."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of a pipeline's call, by name."""


@dataclass(frozen=True, eq=False)
class Condition:
    """Conditioning of a batch, as arguments of the network.

    Compared and hashed by identity, so that tensors derived from it (a doubled batch, say) can be cached.
    """

    positive: dict[str, Tensor]
    """Keyword tensors for the network, first axis = samples; empty for an unconditional model."""
    negative: dict[str, Tensor] | None
    """The same for the other side of classifier-free guidance; None where a model has no such side."""
    captions: list[str]
    """One per sample."""
    draw: Callable[[Sequence[torch.Generator]], "Condition"] | None = None
    """Where the condition is itself drawn (Kandinsky's prior): how, from the streams of the samples."""

    def drawn(self, generators: Sequence[torch.Generator]) -> "Condition":
        """The condition with everything in it; ``generators``, one a sample, are advanced where it is random."""
        return self if self.draw is None else self.draw(generators)

    def start_noise(self, draw: Callable[[], Tensor]) -> Tensor:
        """The start noise of the samples [B, *shape]; ``draw`` is their next draw."""
        return draw()

    def step_noise(self, noise: Tensor) -> Tensor:
        """The noise [B, *shape] between two evaluations, from standard normal noise."""
        return noise


class Model(Protocol):
    """A network with everything that belongs to it."""

    @property
    def id(self) -> str:
        """The name in messages and in run.json: ``"mnist"``, ``"google/ddpm-church-256"``."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: ``(channels, height, width)``, or ``(d,)`` for points."""
        ...

    @property
    def schedule(self) -> Schedule: ...

    @property
    def prediction(self) -> Target: ...

    @property
    def clip(self) -> Clip | DynamicThreshold | None: ...

    @property
    def training(self) -> Training:
        """The training of the network; ``schedule``, ``prediction`` and ``clip`` are parts of it."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def weights_sha256(self) -> str | None:
        """SHA-256 of the weight file; None for a formula. Computed on first use."""
        ...

    @property
    def guidance_scale(self) -> float:
        """Used where the user gives none; 1.0 means no guidance."""
        ...

    def conditions(self, request: Request, indices: Sequence[int]) -> Condition:
        """The condition of the samples with these indices in the run.

        Raises:
            InputError: the model has no such prompt or class.
        """
        ...

    def predict(self, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """One evaluation: ``u`` [B, *shape], ``t`` [B] floating point -> raw output [B, *shape], at least float32.

        Of the condition only the positive side counts; the samples may come from different runs.
        """
        ...

    def decode(self, x: Tensor) -> Tensor:
        """Samples -> images [B, C, H, W] in [0, 1], float32, on the CPU; points are returned unchanged."""
        ...

    def describe(self, condition: Condition) -> list[str]:
        """One caption per sample: ``"7"``, ``"unconditional"``."""
        ...


@runtime_checkable
class EncodesImages(Protocol):
    """A model whose samples are latents of images."""

    def encode(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Images [B, *picture_shape] in [0, 1] as latents [B, *shape]; may draw from the streams, one a sample."""
        ...


@runtime_checkable
class HasClasses(Protocol):
    """A model that can be asked for samples of a class."""

    @property
    def classes(self) -> "Classes | None":
        """Its classes; None where it has none."""
        ...


class Classes(Protocol):
    """The classes of a model, numbered from 0."""

    def asked(self, request: Request, indices: Sequence[int]) -> list[int | None] | None:
        """The requested class of each of these samples; None where none was requested."""
        ...


@runtime_checkable
class CountsPasses(Protocol):
    """A model whose evaluations are more than one forward pass of its network."""

    def passes(self, request: Request) -> int:
        """Forward passes for a sample in one evaluation."""
        ...


@runtime_checkable
class FinishesSamples(Protocol):
    """A model that decodes samples as the end of the call that they were drawn in."""

    def finish(self, x: Tensor, condition: Condition) -> Tensor:
        """As ``decode``, for samples [B, *shape] that were drawn under ``condition``."""
        ...


@runtime_checkable
class LaysOut(Protocol):
    """A model whose samples are images in another layout, such as tokens."""

    def laid_out(self, x: Tensor) -> Tensor:
        """Samples [B, *shape] as images of latents [B, channels, height, width]."""
        ...


class ModelBase:
    """The parts of ``Model`` that are the same for models of pixels in [-1, 1] and of points."""

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

    def decode(self, x: Tensor) -> Tensor:
        return from_model_range(x) if x.ndim == 4 else x

    def describe(self, condition: Condition) -> list[str]:
        return condition.captions


def picture_shape(model: Model) -> tuple[int, int, int]:
    """(channels, height, width) of what ``decode`` returns.

    Raises:
        InputError: the samples are points, not images.
    """
    shape = getattr(model, "picture_shape", model.shape)
    if len(shape) != 3:
        raise InputError(f"model={model.id} samples points, not images")
    return shape


def encode_images(model: Model, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Images [B, *picture_shape] in [0, 1] as samples [B, *shape] of the model: the way back from ``decode``.

    Pixels are only rescaled to [-1, 1].
    """
    if isinstance(model, EncodesImages):
        return model.encode(images, generators)
    return to_model_range(images.to(model.device))


def decode(model: Model, x: Tensor, condition: Condition) -> Tensor:
    """Samples ``x`` [B, *shape] that were drawn under ``condition`` as images; see ``Model.decode``."""
    return model.finish(x, condition) if isinstance(model, FinishesSamples) else model.decode(x)


def laid_out(model: Model, x: Tensor) -> Tensor:
    """Samples [B, *shape] as images [B, channels, height, width] where they are some."""
    return model.laid_out(x) if isinstance(model, LaysOut) else x


def mask_of(model: Model, masks: Tensor, x: Tensor) -> Tensor:
    """Masks [B, 1, H, W] at the size and in the layout of the samples ``x`` [B, *shape]."""
    places = laid_out(model, torch.arange(x[0].numel(), device=x.device, dtype=torch.float64).view_as(x[:1])).long()
    small = torch.nn.functional.interpolate(masks, size=places.shape[-2:])
    if places.shape[1:] == x.shape[1:]:
        return small
    every = small.expand(-1, places.shape[1], -1, -1).flatten(1)
    return torch.zeros_like(every).index_copy(1, places.flatten(), every).view_as(x)


def state_dtype(model: Model) -> torch.dtype:
    """The precision of samples between evaluations: at least float32, whatever the network computes in."""
    return torch.promote_types(model.dtype, torch.float32)


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies in it, else float32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    else:
        native = False
    return torch.bfloat16 if native else torch.float32
