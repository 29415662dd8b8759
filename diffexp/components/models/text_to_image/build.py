"""Models of diffusers pipelines: on their device, evaluated directly or through their own call."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import AutoPipelineForInpainting
from diffusers.utils import is_accelerate_available
from torch.nn.utils import convert_conv2d_weight_memory_format

from diffexp.components.checkpoints.pipeline_files import Parts, read_index
from diffexp.components.checkpoints.pipeline_loader import load_pipeline
from diffexp.components.models.base import Runtime, fast_dtype
from diffexp.components.models.text_to_image.arguments import needs_mask
from diffexp.components.models.text_to_image.black_box import TextToImage
from diffexp.components.models.text_to_image.cache import enable_cache
from diffexp.components.models.text_to_image.latent import Kandinsky22, StableDiffusion
from diffexp.components.models.text_to_image.levels import by_config
from diffexp.errors import InputError

WHITE_BOX_PIPELINES: Mapping[str, Any] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusion,
    "KandinskyV22Pipeline": Kandinsky22,
}
"""Models of the families whose network is evaluated directly, by the class of the pipeline."""

FACTORS = ("vae_scale_factor", "movq_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio")
"""Names under which pipelines keep the pixels of a latent in each direction."""


@dataclass(frozen=True)
class Memory:
    """Options that save device memory or time."""

    offload: Literal["none", "model", "sequential"]
    vae_tiling: bool
    vae_slicing: bool
    cache: str | Mapping[str, Any] | None = None
    """A cache of diffusers for the network, by name or with its options."""


def loaded(runtime: Runtime, parts: Parts, memory: Memory, source: str) -> Any:
    """The pipeline of a checkpoint on its device.

    Raises:
        InputError: it does not load, or cannot save memory in this way.
    """
    if memory.offload != "none" and (runtime.device.type == "cpu" or not is_accelerate_available()):
        raise InputError(f"model.offload={memory.offload} needs a GPU and accelerate; leave it out here")
    dtype = runtime.dtype or _fitting_dtype(runtime.device, read_index(parts.main.folder, source))
    pipe = load_pipeline(parts, dtype, source)
    vae: Any = getattr(_pieces(pipe)[0], "vae", None)
    if (memory.vae_tiling or memory.vae_slicing) and vae is None:
        raise InputError(f"{source} has no VAE; leave model.vae_tiling and model.vae_slicing out")
    if memory.vae_tiling:
        vae.enable_tiling()
    if memory.vae_slicing:
        vae.enable_slicing()
    for one in _pieces(pipe):
        _place(one, runtime, memory)
    if memory.cache:
        enable_cache(_pieces(pipe)[0], memory.cache)
    return pipe


def build(
    runtime: Runtime,
    pipe: Any,
    *,
    id: str,
    size: tuple[int | None, int | None],
    clip_skip: int | None,
    hash_weights: Callable[[], str],
    prior_options: Mapping[str, Any],
) -> TextToImage:
    """The model that a pipeline becomes: a white box if its family is one of ``WHITE_BOX_PIPELINES``.

    Raises:
        InputError: an impossible size, or a noise schedule that diffexp does not know.
    """
    pieces = _pieces(pipe)
    main = pieces[0]
    network = denoiser(main)
    factor = next((int(found) for name in FACTORS if (found := getattr(main, name, None))), 8)
    height, width = (_side(main, network, name, given, factor) for name, given in zip(("height", "width"), size))
    common: dict[str, Any] = {
        "id": id,
        "pipe": main,
        "trained": by_config(main.scheduler, f"model.id={id}"),
        "device": runtime.device,
        "dtype": network.dtype,
        "height": height,
        "width": width,
        "hash_weights": hash_weights,
        "clip_skip": _checked_clip_skip(main, clip_skip, id),
    }
    if needs_mask(main):
        with suppress(ValueError):  # where diffusers knows no other, it reads mask and image itself
            common["pipe"] = AutoPipelineForInpainting.from_pipe(main)
        return TextToImage(**common)
    alone = hasattr(main, "movq") and len(pieces) == 1  # without a prior, the embeddings of images are its input
    if alone or not evaluates_directly(main, network):
        return TextToImage(**common)
    if len(pieces) > 1:
        return Kandinsky22(**common, factor=factor, prior=pieces[1], **prior_options)
    return WHITE_BOX_PIPELINES[type(main).__name__](**common, factor=factor)


def _side(pipe: Any, network: Any, name: str, given: int | None, factor: int) -> int | None:
    """The height or width of images in pixels, those that it changes too; None for a pipeline of no size."""
    parameters = inspect.signature(pipe.__call__).parameters
    if name not in parameters and "image" not in parameters:
        if given is not None:
            raise InputError(f"model.{name}={given}: a {type(pipe).__name__} takes no size; leave it out")
        return None
    if given is None:
        sized = "sample_size" in getattr(network, "config", ["sample_size"])
        usual = None if sized or name not in parameters else parameters[name].default
        return usual if isinstance(usual, int) else _default_size(pipe, network) * factor
    packed = 2 if hasattr(pipe, "_pack_latents") else 1
    multiple = factor**2 if hasattr(pipe, "movq") else max(8, packed * factor)
    if given % multiple or given < multiple:
        nearest = max(multiple, round(given / multiple) * multiple)
        raise InputError(f"model.{name}={given} is not a multiple of {multiple}; the nearest is {nearest}")
    return given


def _checked_clip_skip(pipe: Any, clip_skip: int | None, source: str) -> int | None:
    if clip_skip is None:
        return None
    if "clip_skip" not in inspect.signature(pipe.__call__).parameters:
        raise InputError(f"model.clip_skip={clip_skip}: a {type(pipe).__name__} takes none; leave it out")
    most = pipe.text_encoder.config.num_hidden_layers - 1
    if not 0 <= clip_skip <= most:
        raise InputError(f"model.clip_skip={clip_skip} must be from 0 to {most}, the layers of {source} but one")
    if not hasattr(pipe.text_encoder, "text_model"):  # flattened by transformers 5.6; diffusers still reads it
        object.__setattr__(pipe.text_encoder, "text_model", pipe.text_encoder)
    return clip_skip


def denoiser(pipe: Any) -> Any:
    """The network that is evaluated at every step."""
    return getattr(pipe, "unet", None) or getattr(pipe, "transformer", None) or pipe.prior


def _pieces(pipe: Any) -> list[Any]:
    """The pipeline, or for a combined one its decoder and its prior."""
    whole = hasattr(pipe, "decoder_pipe") and type(pipe.decoder_pipe).__name__ in WHITE_BOX_PIPELINES
    return [pipe.decoder_pipe, pipe.prior_pipe] if whole else [pipe]


def evaluates_directly(pipe: Any, network: Any) -> bool:
    """Whether the network of a pipeline is evaluated directly: of a known family, without anything in its inputs."""
    name, config = type(pipe).__name__, network.config
    if name not in WHITE_BOX_PIPELINES or config.get("time_cond_proj_dim"):  # the second takes the guidance scale
        return False
    latents = (getattr(pipe, "vae", None) or pipe.movq).config["latent_channels"]
    adapted = hasattr(getattr(network, "encoder_hid_proj", None), "image_projection_layers")  # by an IP-Adapter
    return not adapted and config["in_channels"] == latents


def _fitting_dtype(device: torch.device, index: Mapping[str, Any]) -> torch.dtype:
    """Half precision on a GPU: bfloat16 for transformers, whose activations can be large, float16 for UNets."""
    if device.type != "cuda":
        return torch.float32
    return fast_dtype(device) if "transformer" in index else torch.float16


def _default_size(pipe: Any, network: Any) -> int:
    """Latents on a side."""
    size = getattr(pipe, "default_sample_size", None) or network.config.get("sample_size") or 64
    return int(size if isinstance(size, int | float) else size[0])


def _place(pipe: Any, runtime: Runtime, memory: Memory) -> None:
    pipe.set_progress_bar_config(disable=True)
    if memory.offload == "model":
        pipe.enable_model_cpu_offload(device=runtime.device)
    elif memory.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=runtime.device)
    else:
        pipe.to(runtime.device)
        if getattr(pipe, "unet", None) is not None:
            convert_conv2d_weight_memory_format(pipe.unet, torch.channels_last)
    if runtime.compile:
        denoiser(pipe).compile()
