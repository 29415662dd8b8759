"""The files of a checkpoint saved by diffusers, and checks that it can be used. Imports nothing heavy."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from diffexp.errors import InputError

SAFE, PICKLED = "safetensors", "bin"
INDEX = "model_index.json"
_NOT_PIXELS = ("vae", "vqvae", "text_encoder", "transformer", "prior")


class Incomplete(InputError):
    """A copy of a checkpoint lacks something that another copy may have."""


@dataclass(frozen=True)
class Layout:
    """Paths within a checkpoint, relative to its folder."""

    network: str
    """Folder of the network: ``"unet"`` or ``"."``."""
    weights: str
    """Path of the weights."""
    format: str
    """``"safetensors"`` or ``"bin"`` (pickle)."""
    variant: str | None
    """As in ``diffusion_pytorch_model.<variant>.safetensors``."""
    scheduler: str | None
    """Path of scheduler_config.json."""

    @property
    def files(self) -> list[str]:
        """All files that a download has to include."""
        config = str(PurePosixPath(self.network, "config.json"))
        return [config, self.weights, *([self.scheduler] if self.scheduler else [])]


def find_layout(names: Collection[str], source: str) -> Layout:
    """Choose the files of an unconditional checkpoint among ``names`` (POSIX paths relative to its folder).

    Safetensors are preferred to pickles, and files without a variant to those with one.

    Raises:
        Incomplete: there is no network or no weights; ``source`` names the checkpoint in the message.
    """
    network = next((n for n in ("unet", ".") if str(PurePosixPath(n, "config.json")) in names), None)
    if network is None:
        raise Incomplete(f"{source} is not a diffusers checkpoint: it has neither unet/config.json nor config.json")
    scheduler = next((n for n in ("scheduler/scheduler_config.json", "scheduler_config.json") if n in names), None)
    inside = [PurePosixPath(name) for name in names if PurePosixPath(name).parent == PurePosixPath(network)]
    for kind in (SAFE, PICKLED):
        pattern = re.compile(rf"diffusion_pytorch_model\.(?:(.+)\.)?{kind}")
        found = {match[1] or "": path for path in inside if (match := pattern.fullmatch(path.name))}
        if found:
            variant = min(found)  # "" comes first
            return Layout(network, str(found[variant]), kind, variant or None, scheduler)
    raise Incomplete(f"{source} has no weights: no {PurePosixPath(network, 'diffusion_pytorch_model.safetensors')}")


def list_files(folder: Path) -> list[str]:
    """The files in a folder and up to three levels below it, as POSIX paths relative to it."""
    found = (path for depth in range(4) for path in folder.glob("*/" * depth + "*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in found]


def check_format(layout: Layout, source: str, allow_pickle: bool) -> None:
    """Refuse pickled weights unless they are allowed.

    Raises:
        InputError: the weights are pickled, and ``allow_pickle`` is not set.
    """
    if layout.format == PICKLED and not allow_pickle:
        raise InputError(
            f"{source} has its weights in pickle format only ({layout.weights}), which can run any code when "
            "loaded; if you trust it: model.allow_pickle=true"
        )


def check_pipeline(folder: Path, source: str) -> None:
    """Check that a model_index.json, if there is one, describes an unconditional network on pixels.

    Raises:
        InputError: it describes something else, or is not valid.
    """
    path = folder / INDEX
    if not path.is_file():
        return  # as ``UNet2DModel.save_pretrained`` leaves a folder: the network's own config is enough
    index = read_config(path)
    parts = [name for name, value in index.items() if isinstance(value, list) and value and value[0]]
    other = next((name for name in _NOT_PIXELS if name in parts), None)
    if other:
        pipeline = index.get("_class_name", "a pipeline")
        raise InputError(
            f"{source} is a {pipeline} with a {other}; model=hub takes unconditional pixel models only, "
            "model=pipeline takes text-to-image ones"
        )
    if "unet" not in parts:
        raise InputError(f"{source}: {path} names no unet; it should be that of an unconditional diffusers pipeline")


def check_network(config: dict[str, Any], source: str) -> None:
    """Check that a network's config.json is that of a UNet2DModel.

    Raises:
        InputError: it is that of another class.
    """
    name = config.get("_class_name", "UNet2DModel")
    if name not in ("UNet2DModel", "UNetUnconditionalModel"):  # the latter is the class's first name
        raise InputError(f"{source} is a {name}; only checkpoints of UNet2DModel can be used")


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file is missing or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object")
    return content
