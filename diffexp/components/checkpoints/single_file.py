"""Checkpoints in one ``.safetensors`` file, as A1111, ComfyUI and civitai share them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from diffexp.components.checkpoints.layout import PICKLED, SAFE
from diffexp.components.checkpoints.pipeline_files import (
    Choice,
    Found,
    absent_parts,
    choose_files,
    find_pipeline,
    parts_of,
)
from diffexp.errors import InputError

NETWORK = "model.diffusion_model."
"""Prefix of the denoising network's weights in such a file."""


def is_file(id: str) -> bool:
    """Whether the ``id`` of a model names one file of weights."""
    return id.endswith((f".{SAFE}", ".ckpt", ".pt", ".pth")) and not Path(id).expanduser().is_dir()


def find_file(id: str, key: str) -> Path:
    """The file of weights that a config key names.

    Raises:
        InputError: there is none, it is damaged, or it is a pickle.
    """
    file = Path(id).expanduser()
    if not id.endswith(f".{SAFE}"):
        raise InputError(f"{key}={id} is a pickle, which can run any code when loaded; only .{SAFE} files are loaded")
    if not file.is_file():
        raise InputError(f"{key}={id}: no such file")
    _shapes(file, key)
    return file


def find_configs(file: Path, config: str | None) -> Found:
    """The configs and tokenizers of a checkpoint in one file: those named, else those that its weights imply.

    Raises:
        InputError: the file holds no pipeline of a kind that diffusers knows, or its configs are not at hand.
    """
    repository = config or _usual_configs(file)
    try:
        return find_pipeline(repository, "model.config", _configs)
    except InputError as error:
        lacks = f"model.id={file} has weights alone; its configs and tokenizer are not at hand"
        raise InputError(f"{lacks} ({error}), or name a folder with them: model.config=...") from error


def _configs(index: Mapping[str, Any], names: Sequence[str]) -> Choice:
    """The files of a pipeline but its weights."""
    small = [name for name in names if not name.endswith((f".{SAFE}", f".{PICKLED}"))]
    found = choose_files(index, small, "model.config", None, False)
    return replace(found, missing=tuple(part for part in found.missing if "/" not in part))


def load_file(file: Path, configs: Found, index: Mapping[str, Any], dtype: Any, parts: Mapping[str, Any]) -> Any:
    """The pipeline of a checkpoint in one file, with ``parts`` instead of its own.

    Raises:
        InputError: diffusers does not load its class from one file.
    """
    import diffusers

    name = str(index["_class_name"])
    cls: Any = getattr(diffusers, name, None)
    if not hasattr(cls, "from_single_file"):
        raise InputError(f"model.id={file}: diffusers loads no {name} from one file")
    flags = {"requires_safety_checker": False} if "requires_safety_checker" in index else {}
    own = {key: part for key, part in parts.items() if key in parts_of(index)}
    given = {"config": str(configs.folder), "local_files_only": True, "torch_dtype": dtype}
    return cls.from_single_file(str(file), **given, **flags, **dict.fromkeys(absent_parts(index)), **own)


def load_vae(place: Path, configs: Found, index: Mapping[str, Any], dtype: Any) -> Any:
    """The VAE in a folder, or in one file, which then has the architecture of the checkpoint's.

    Raises:
        InputError: the checkpoint has none that could be replaced.
    """
    import diffusers

    if "vae" not in parts_of(index):
        raise InputError(f"model.vae={place}: a {index['_class_name']} has no VAE; leave it out")
    cls: Any = getattr(diffusers, parts_of(index)["vae"][1])
    if place.is_file():
        given = {"config": str(configs.folder), "subfolder": "vae", "local_files_only": True, "torch_dtype": dtype}
        return cls.from_single_file(str(place), **given)
    return cls.from_pretrained(str(place), use_safetensors=True, local_files_only=True).to(dtype)


def _usual_configs(file: Path) -> str:
    """The repository that diffusers takes the configs of such a checkpoint from."""
    shapes = _shapes(file, "model.id")
    if not any(name.startswith(NETWORK) for name in shapes):
        raise InputError(f"model.id={file} is no whole checkpoint: it has no {NETWORK}*; a LoRA goes to model.lora")
    import torch
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return str(fetch_diffusers_config(weights)["pretrained_model_name_or_path"])


def _shapes(file: Path, key: str) -> dict[str, list[int]]:
    try:
        with safe_open(file, "pt") as content:
            return {name: content.get_slice(name).get_shape() for name in content.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{key}={file} is damaged or no .{SAFE} file: {error}") from error
