"""Loading of diffusers pipelines, with all that is added to them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
from diffusers import AutoPipelineForText2Image, DiffusionPipeline
from diffusers.pipelines.auto_pipeline import (
    AUTO_IMAGE2IMAGE_PIPELINES_MAPPING as AUTO_IMAGE2IMAGE,
    AUTO_TEXT2IMAGE_PIPELINES_MAPPING as AUTO_TEXT2IMAGE,
    _get_task_class,
)
from diffusers.utils import is_accelerate_available, is_peft_available, is_transformers_available

from diffexp.components.checkpoints.layout import SAFE, read_config
from diffexp.components.checkpoints.pipeline_files import Addition, Found, Parts, absent_parts, read_index
from diffexp.components.checkpoints.single_file import load_file, load_vae
from diffexp.errors import InputError


def load_pipeline(parts: Parts, dtype: torch.dtype, source: str) -> Any:
    """The pipeline of a checkpoint on the CPU, with its ControlNet, LoRA and IP-Adapter.

    Raises:
        InputError: it does not load, or it is of a kind that diffusers does not know.
    """
    if not is_transformers_available():
        raise InputError("text-to-image pipelines need transformers: pip install diffexp[pipelines]")
    found, index = parts.main, read_index(parts.main.folder, source)
    with _loading(source):
        more = {"controlnet": _controlnet(parts.controlnet, dtype)} if parts.controlnet else {}
        if parts.vae:
            more["vae"] = load_vae(parts.vae, found, index, dtype)
        if parts.file:
            pipe = AutoPipelineForText2Image.from_pipe(load_file(parts.file, found, index, dtype, more), **more)
        elif parts.prior is None:
            cls = AutoPipelineForText2Image if _is_text_to_image(index) else DiffusionPipeline
            pipe = _from_folder(cls, found, index, dtype, more)
        else:
            first = _from_folder(DiffusionPipeline, parts.prior, read_index(parts.prior.folder, source), dtype)
            priors = {f"prior_{name}": part for name, part in first.components.items()}
            decoder = _from_folder(DiffusionPipeline, found, index, dtype)
            pipe = AutoPipelineForText2Image.from_pipe(decoder, **priors)
        _add_lora(pipe, parts.lora)
        _add_ip_adapter(pipe, parts.ip_adapter)
    return pipe


def _is_text_to_image(index: Mapping[str, Any]) -> bool:
    """Whether AutoPipelineForText2Image loads a checkpoint; one for image-to-image keeps its own class."""
    name = str(index["_class_name"])
    if name in {cls.__name__ for cls in AUTO_IMAGE2IMAGE.values()} - {cls.__name__ for cls in AUTO_TEXT2IMAGE.values()}:
        return False
    return _get_task_class(AUTO_TEXT2IMAGE, name, throw_error_if_not_exist=False) is not None


def _from_folder(
    cls: Any, found: Found, index: Mapping[str, Any], dtype: torch.dtype, more: Mapping[str, Any] = MappingProxyType({})
) -> Any:
    # diffusers renamed the keyword.
    known = hasattr(diffusers.utils.deprecation_utils, "_resolve_dtype")
    options = {
        "dtype" if known else "torch_dtype": dtype,
        "variant": found.choice.variant,
        "use_safetensors": True if found.choice.format == SAFE else None,
        "local_files_only": True,
        "low_cpu_mem_usage": is_accelerate_available(),
        **({"requires_safety_checker": False} if "requires_safety_checker" in index else {}),
        **dict.fromkeys(absent_parts(index)),
    }
    return cls.from_pretrained(str(found.folder), **options | dict(more))


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
