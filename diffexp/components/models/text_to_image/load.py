"""Loading of diffusers pipelines onto a device."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from diffusers import AutoPipelineForInpainting, AutoPipelineForText2Image, DiffusionPipeline
from diffusers.pipelines.auto_pipeline import (
    AUTO_IMAGE2IMAGE_PIPELINES_MAPPING as AUTO_IMAGE2IMAGE,
    AUTO_TEXT2IMAGE_PIPELINES_MAPPING as AUTO_TEXT2IMAGE,
    _get_task_class,
)
from diffusers.utils import is_accelerate_available, is_peft_available, is_transformers_available
from torch.nn.utils import convert_conv2d_weight_memory_format

from diffexp.components.checkpoints.layout import SAFE, read_config
from diffexp.components.models.base import Runtime, fast_dtype
from diffexp.components.models.text_to_image.arguments import needs_mask
from diffexp.components.models.text_to_image.black_box import TextToImage
from diffexp.components.models.text_to_image.cache import enable_cache
from diffexp.components.models.text_to_image.files import Addition, Found, Parts, absent_parts, read_index
from diffexp.components.models.text_to_image.latent import Kandinsky22, StableDiffusion, StableDiffusionXL
from diffexp.components.models.text_to_image.levels import by_config
from diffexp.components.models.text_to_image.single_file import load_file, load_vae
from diffexp.errors import InputError

WHITE_BOX_PIPELINES: Mapping[str, Any] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "KandinskyV22Pipeline": Kandinsky22,
}
"""Models of the families whose network is evaluated directly, by the class of the pipeline."""

FACTORS = ("vae_scale_factor", "movq_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio")
"""Names under which pipelines keep the pixels of a latent in each direction."""
SIZES = 6
"""Numbers for original size, crop and target size in SDXL's conditioning (Podell et al. 2023, section 2.2)."""


@dataclass(frozen=True)
class Memory:
    """Options that save device memory or time."""

    offload: Literal["none", "model", "sequential"]
    vae_tiling: bool
    vae_slicing: bool
    cache: str | Mapping[str, Any] | None = None
    """A cache of diffusers for the network, by name or with its options."""


def load(
    runtime: Runtime,
    found: Found,
    parts: Parts,
    additions: Mapping[str, Addition | None],
    memory: Memory,
    *,
    source: str,
) -> Any:
    """The text-to-image pipeline of a checkpoint on its device, with its ControlNet, LoRA and IP-Adapter.

    Raises:
        InputError: it does not load, or it is of a kind that AutoPipelineForText2Image does not know.
    """
    if not is_transformers_available():
        raise InputError("text-to-image pipelines need transformers: pip install diffexp[pipelines]")
    if memory.offload != "none" and (runtime.device.type == "cpu" or not is_accelerate_available()):
        raise InputError(f"model.offload={memory.offload} needs a GPU and accelerate; leave it out here")
    index = read_index(found.folder, source)
    dtype = runtime.dtype or _fitting_dtype(runtime.device, index)
    with _loading(f"model.id={source}"):
        more = {"controlnet": _controlnet(parts.controlnet, dtype)} if parts.controlnet else {}
        if parts.vae:
            more["vae"] = load_vae(parts.vae, found, index, dtype)
        if parts.file:
            pipe = AutoPipelineForText2Image.from_pipe(load_file(parts.file, found, index, dtype, more), **more)
        elif parts.prior is None:
            arguments = _arguments(found, index, dtype) | more
            cls = AutoPipelineForText2Image if _is_text_to_image(index) else DiffusionPipeline
            pipe = cls.from_pretrained(str(found.folder), **arguments)
        else:
            first = DiffusionPipeline.from_pretrained(
                str(parts.prior.folder), **_arguments(parts.prior, read_index(parts.prior.folder, source), dtype)
            )
            decoder = DiffusionPipeline.from_pretrained(str(found.folder), **_arguments(found, index, dtype))
            priors = {f"prior_{name}": part for name, part in first.components.items()}
            pipe = AutoPipelineForText2Image.from_pipe(decoder, **priors)
        if (memory.vae_tiling or memory.vae_slicing) and getattr(_pieces(pipe)[0], "vae", None) is None:
            raise InputError(f"model.id={source} has no VAE; leave model.vae_tiling and model.vae_slicing out")
        _add_lora(pipe, additions["lora"])
        _add_ip_adapter(pipe, additions["ip_adapter"])
        for one in _pieces(pipe):
            _place(one, runtime, memory)
        if memory.cache:
            enable_cache(_pieces(pipe)[0], memory.cache)
    return pipe


def _is_text_to_image(index: Mapping[str, Any]) -> bool:
    """Whether AutoPipelineForText2Image loads a checkpoint; one for image-to-image keeps its own class."""
    name = str(index["_class_name"])
    if name in {cls.__name__ for cls in AUTO_IMAGE2IMAGE.values()} - {cls.__name__ for cls in AUTO_TEXT2IMAGE.values()}:
        return False
    return _get_task_class(AUTO_TEXT2IMAGE, name, throw_error_if_not_exist=False) is not None


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
    if adapted or config["in_channels"] != latents:
        return False
    return name != "StableDiffusionXLPipeline" or _size_numbers(pipe, network) == SIZES


def _size_numbers(pipe: Any, network: Any) -> int:
    """Numbers about the image that SDXL's UNet takes besides the pooled text."""
    width = network.config["projection_class_embeddings_input_dim"] - pipe.text_encoder_2.config.projection_dim
    return width // network.config["addition_time_embed_dim"]


def _arguments(found: Found, index: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    # diffusers renamed the keyword.
    known = hasattr(diffusers.utils.deprecation_utils, "_resolve_dtype")
    return {
        "dtype" if known else "torch_dtype": dtype,
        "variant": found.choice.variant,
        "use_safetensors": True if found.choice.format == SAFE else None,
        "local_files_only": True,
        "low_cpu_mem_usage": is_accelerate_available(),
        **({"requires_safety_checker": False} if "requires_safety_checker" in index else {}),
        **dict.fromkeys(absent_parts(index)),
    }


def _fitting_dtype(device: torch.device, index: Mapping[str, Any]) -> torch.dtype:
    """Half precision on a GPU: bfloat16 for transformers, whose activations can be large, float16 for UNets."""
    if device.type != "cuda":
        return torch.float32
    return fast_dtype(device) if "transformer" in index else torch.float16


def _default_size(pipe: Any, network: Any) -> int:
    """Latents on a side."""
    size = getattr(pipe, "default_sample_size", None) or network.config.get("sample_size") or 64
    return int(size if isinstance(size, int | float) else size[0])


def _controlnet(folder: Path, dtype: torch.dtype) -> Any:
    name = read_config(folder / "config.json").get("_class_name", "ControlNetModel")
    cls = getattr(diffusers, str(name), None)
    if cls is None or "ControlNet" not in str(name):
        raise InputError(f"model.controlnet={folder} is a {name}, not a ControlNet of diffusers")
    return cls.from_pretrained(str(folder), use_safetensors=True, local_files_only=True).to(dtype)


def _add_lora(pipe: Any, lora: Addition | None) -> None:
    """Merge a LoRA into the weights, so that it costs nothing while sampling."""
    if lora is None:
        return
    if not is_peft_available():
        raise InputError("model.lora needs peft: pip install diffexp[pipelines]")
    pipe.load_lora_weights(str(lora.folder), weight_name=lora.file, local_files_only=True)
    pipe.fuse_lora(lora_scale=lora.scale)
    pipe.unload_lora_weights()


def _add_ip_adapter(pipe: Any, adapter: Addition | None) -> None:
    if adapter is None:
        return
    file = Path(adapter.file)
    pipe.load_ip_adapter(str(adapter.folder), subfolder=str(file.parent), weight_name=file.name, local_files_only=True)
    pipe.set_ip_adapter_scale(adapter.scale)


def _place(pipe: Any, runtime: Runtime, memory: Memory) -> None:
    pipe.set_progress_bar_config(disable=True)
    vae = getattr(pipe, "vae", None)
    if vae is not None and memory.vae_tiling:
        vae.enable_tiling()
    if vae is not None and memory.vae_slicing:
        vae.enable_slicing()
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


@contextmanager
def _loading(source: str) -> Iterator[None]:
    """Turn any exception of the loaders into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        if "AutoPipeline can't find" in reason:
            raise InputError(f"{source}: {reason}; it is not a text-to-image pipeline of diffusers") from error
        raise InputError(f"{source} does not load: {reason}") from error
