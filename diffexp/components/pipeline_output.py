"""What the call of a pipeline of diffusers returns: images, frames of videos or sounds, in whatever containers."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from diffexp.components.media import Media
from diffexp.errors import InputError

KINDS: Mapping[str, Literal["image", "video", "sound"]] = {
    "images": "image",
    "image": "image",
    "frames": "video",
    "videos": "video",
    "audios": "sound",
    "audio": "sound",
}
"""By the fields of a pipeline's output; of several, the first is what the pipeline draws."""
FRAME_RATE, SAMPLING_RATE = 8.0, 16000.0
"""Where a pipeline says nothing of them."""
RATE_ARGUMENTS = ("frame_rate", "fps")
"""Names of the argument of a pipeline's call that is the rate of its videos."""


def media_of_pipeline(pipe: Any, arguments: Mapping[str, Any]) -> Media | None:
    """What a pipeline draws besides images, by the class of its output; None for images.

    Args:
        arguments: those of its call that are given, by name.
    """
    kind = _kind_of(type(pipe))
    if kind == "video":
        return Media("video", _frame_rate(pipe, arguments))
    return Media("sound", _sampling_rate(pipe)) if kind == "sound" else None


def decoded(output: Any) -> Tensor:
    """The samples that the call of a pipeline returned, float32 on the CPU.

    Args:
        output: the object or tuple that it returned, for whichever ``output_type``.

    Returns:
        Images [B, C, H, W] and videos [B, F, C, H, W] in [0, 1], sounds [B, channels, T] in [-1, 1].

    Raises:
        InputError: it holds no images, frames or sounds.
    """
    name, found = _field(output)
    if KINDS.get(name, "image") == "sound":
        sounds = torch.nan_to_num(_stacked(found)).float().clamp(-1, 1)
        return sounds[:, None] if sounds.ndim == 2 else sounds
    return _channels_first(found)


def unpacked(pipe: Any, x: Tensor, height: int | None, width: int | None) -> Tensor:
    """Samples [B, *shape] as images of latents, where the pipeline packs them as tokens."""
    if x.ndim == 3 and height and hasattr(pipe, "_unpack_latents"):
        unpack = pipe._unpack_latents
        if list(inspect.signature(unpack).parameters) == ["latents", "height", "width", "vae_scale_factor"]:
            x = unpack(x, height, width, pipe.vae_scale_factor)
    return x.squeeze(2) if x.ndim == 5 and x.shape[2] == 1 else x


def _kind_of(pipeline: type) -> str:
    """The kind of the first output class that the module of a pipeline, or of one that it extends, knows."""
    for base in pipeline.__mro__:
        for value in vars(sys.modules.get(base.__module__, base)).values():
            own = isinstance(value, type) and issubclass(value, BaseOutput) and is_dataclass(value)
            names = [field.name for field in fields(value)] if own else []  # pyright: ignore[reportArgumentType]
            if kind := next((KINDS[name] for name in names if name in KINDS), None):
                return kind
    return "image"


def _frame_rate(pipe: Any, arguments: Mapping[str, Any]) -> float:
    parameters = inspect.signature(pipe.__call__).parameters
    for name in RATE_ARGUMENTS:
        if name in parameters:
            value = arguments.get(name, parameters[name].default)
            if isinstance(value, int | float) and value > 0:
                return float(value)
    return FRAME_RATE


def _sampling_rate(pipe: Any) -> float:
    """That of the network which makes the wave: a vocoder, or the autoencoder."""
    for part in (getattr(pipe, name, None) for name in ("vocoder", "vae")):
        for place in (getattr(part, "config", None), part):
            value = getattr(place, "sampling_rate", None)
            if isinstance(value, int | float) and value > 0:
                return float(value)
    return SAMPLING_RATE


def _field(output: Any) -> tuple[str, Any]:
    for name in KINDS:
        if getattr(output, name, None) is not None:
            return name, getattr(output, name)
    if isinstance(output, tuple | list) and output:
        return "", output[0]
    raise InputError(f"the pipeline returned a {type(output).__name__} without images, frames or sounds")


def _stacked(found: Any) -> Tensor:
    """Arrays, tensors or (lists of) sequences of them as one tensor, sample by sample."""
    if isinstance(found, Tensor):
        return found.detach().cpu()
    if isinstance(found, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(found))
    if isinstance(found, Image.Image):
        array = np.asarray(found.convert("RGB") if found.mode not in ("L", "RGB") else found)
        return torch.from_numpy(array.copy()).reshape(found.height, found.width, -1).float() / 255
    if isinstance(found, Sequence) and len(found) and not isinstance(found, str):
        parts = [_stacked(one) for one in found]
        if all(part.shape == parts[0].shape for part in parts):
            return torch.stack(parts)
    raise InputError(f"the pipeline returned a {type(found).__name__} that is no batch of images, frames or sounds")


def _channels_first(found: Any) -> Tensor:
    """Pixels [..., C, H, W] in [0, 1]; arrays and PIL images have their channels last."""
    values = _stacked(found)
    values = values.float() / 255 if values.dtype == torch.uint8 else values.float()
    return values.clamp(0, 1) if _is_channels_first(found) else values.movedim(-1, -3).clamp(0, 1)


def _is_channels_first(found: Any) -> bool:
    while isinstance(found, Sequence) and not isinstance(found, str):
        found = found[0]
    return isinstance(found, Tensor)
