"""Models from objects: those of diffexp as they are, and pipelines of diffusers that are loaded already."""

import hashlib
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from typing import Any

import torch

from diffexp.components.models.base import Model, Runtime
from diffexp.components.models.labels import ClassLabels
from diffexp.errors import InputError


def is_pipeline(thing: Any) -> bool:
    """Whether an object is a pipeline of diffusers, which is imported already if it is."""
    diffusers = sys.modules.get("diffusers")
    return diffusers is not None and isinstance(thing, diffusers.DiffusionPipeline)


def model_of(thing: Any) -> Callable[..., Model]:
    """What builds the model of an object, from the options ``height``, ``width`` and ``clip_skip`` of a pipeline.

    Raises:
        InputError: it is neither a model nor a pipeline that diffexp can use.
    """
    name = type(thing).__name__
    if not is_pipeline(thing):
        own = {*dir(type(thing)), *getattr(thing, "__dict__", ())}  # not hasattr, which would hash a weight file
        missing = [part for part in vars(Model) if not part.startswith("_") and part not in own]
        if missing:
            lacks = f"it lacks {', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}"
            raise InputError(f"model: a {name} is neither a pipeline of diffusers nor a model of diffexp ({lacks})")
        return lambda: thing
    networks = [getattr(thing, part, None) for part in ("unet", "transformer", "prior", "decoder_pipe")]
    if not any(one is not None for one in networks) or getattr(thing, "scheduler", None) is None:
        raise InputError(f"model: a {name} has no denoising network and scheduler, and cannot be used")
    if type(networks[0]).__name__ in ("UNet2DModel", "UNet"):
        return partial(_pixel_model, thing)
    return partial(_text_model, thing)


def weights_of(thing: Any) -> str:
    """SHA-256 of the weights of a model or a pipeline; of a formula that of its numbers.

    Random where an object has neither, so that no other is taken for it.
    """
    if is_pipeline(thing):
        return hash_of_networks(thing.components)
    if thing.weights_sha256 is not None:
        return thing.weights_sha256
    try:
        return hashlib.sha256(b"\0".join(_numbers(thing))).hexdigest()
    except TypeError:
        return secrets.token_hex(32)


def _numbers(value: Any) -> Iterator[bytes]:
    """Everything that a model made of numbers consists of.

    Raises:
        TypeError: it consists of something else.
    """
    if isinstance(value, torch.Tensor):
        yield from (repr((value.dtype, value.shape)).encode(), _content(value))
    elif is_dataclass(value) and not isinstance(value, type):
        yield f"{type(value).__module__}.{type(value).__qualname__}".encode()
        for one in fields(value):
            yield one.name.encode()
            yield from _numbers(getattr(value, one.name))
    elif isinstance(value, Mapping | list | tuple):
        yield f"{len(value)}".encode()
        for item in value.items() if isinstance(value, Mapping) else value:
            yield from _numbers(item)
    elif isinstance(value, Enum | str | int | float | torch.dtype | torch.device | None):
        yield repr(value).encode()
    else:
        raise TypeError(type(value).__name__)


def _content(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes()


def hash_of_networks(parts: Mapping[str, Any]) -> str:
    """SHA-256 of every parameter and buffer of the networks among the parts of a pipeline.

    Raises:
        InputError: some of them are on no device.
    """
    digest = hashlib.sha256()
    for part, network in sorted((name, one) for name, one in parts.items() if isinstance(one, torch.nn.Module)):
        for key, tensor in sorted(network.state_dict().items()):
            if tensor.is_meta:
                raise InputError(f"model: the weights of its {part} are on no device; give it without offloading")
            digest.update(f"{part}.{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(_content(tensor))
    return digest.hexdigest()


def _id(pipe: Any) -> str:
    return str(getattr(pipe.config, "_name_or_path", "") or pipe.config.get("_name_or_path") or type(pipe).__name__)


def _pixel_model(pipe: Any) -> Model:
    """The model of an unconditional or class-conditional pipeline."""
    from diffexp.components.checkpoints.scheduler_config import read_training
    from diffexp.components.models.unet import UNetModel, check_inputs

    net, source = pipe.unet, _id(pipe)
    check_inputs(net, source)
    config = {key: value for key, value in pipe.scheduler.config.items() if key != "_use_default_values"}
    classes = net.config["num_class_embeds"]
    return UNetModel(
        id=source,
        net=net,
        training=read_training(config | {"_class_name": type(pipe.scheduler).__name__}, "model"),
        classes=ClassLabels(source, classes) if classes else None,
        device=net.device,
        dtype=net.dtype,
        hash_weights=partial(hash_of_networks, pipe.components),
        forward=net,
    )


def _text_model(pipe: Any, height: int | None = None, width: int | None = None, clip_skip: int | None = None) -> Model:
    """The model of a pipeline, evaluated directly where its family is known, else through its own call."""
    from diffexp.components.models.text_to_image.build import build

    pipe.set_progress_bar_config(disable=True)
    return build(
        Runtime(torch.device(pipe.device)),
        pipe,
        id=_id(pipe),
        size=(height, width),
        clip_skip=clip_skip,
        hash_weights=partial(hash_of_networks, pipe.components),
        prior_options={"prior_steps": 25, "prior_guidance_scale": 4.0},
    )
