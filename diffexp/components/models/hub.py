"""Unconditional diffusers checkpoints, from a folder, the local cache or the Hugging Face hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffexp import model
from diffexp.components.checkpoints.download import Fetch, locate
from diffexp.components.checkpoints.layout import (
    check_format,
    check_network,
    check_pipeline,
    find_layout,
    list_files,
    read_config,
)
from diffexp.components.models.base import Model, Runtime
from diffexp.components.models.labels import ClassLabels
from diffexp.errors import InputError


@model(default_samples=4)
def hub(runtime: Runtime, *, id: str, revision: str | None = None, allow_pickle: bool = False) -> Model:
    """Any unconditional (or class-conditional) pixel-space checkpoint of diffusers' UNet2DModel.

    Noise schedule, prediction type and clipping come from the checkpoint's own scheduler config. A checkpoint in the
    cache (HF_HOME, HF_HUB_CACHE) is used as it is, without asking the network for a newer one; pin ``revision`` to say
    which one is meant.

    Args:
        id: a folder, or a repository on the hub such as ``google/ddpm-church-256``.
        revision: branch, tag or commit of the repository.
        allow_pickle: also take weights in pickle format (.bin), which can run any code when loaded.

    Raises:
        InputError: no such checkpoint, no network to get it, or not one that can be used.
    """
    source = f"model.id={id}"
    folder = locate(id, revision, Checkpoint(source, allow_pickle))
    check_pipeline(folder, source)
    layout = find_layout(list_files(folder), source)
    check_format(layout, source, allow_pickle)
    check_network(read_config(folder / layout.network / "config.json"), source)
    if layout.scheduler is None:
        raise InputError(f"{source} has no scheduler_config.json, which says how the network was trained")

    # diffusers takes seconds to import: whatever is wrong with the files has been said by now.
    from diffexp.components.models.scheduler_config import read_training
    from diffexp.components.models.unet import load_unet

    training = read_training(read_config(folder / layout.scheduler), source)
    return load_unet(runtime, folder, layout, training, id=id, labels=lambda n: ClassLabels(id, n) if n else None)


@dataclass(frozen=True)
class Checkpoint:
    """An unconditional pixel-space checkpoint, as something to look for."""

    source: str
    allow_pickle: bool
    marker_files = ("model_index.json", "config.json", "unet/config.json")

    def complete(self, folder: Path) -> bool:
        check_pipeline(folder, self.source)
        try:
            return find_layout(list_files(folder), self.source).scheduler is not None
        except InputError:
            return False

    def choose(self, names: Sequence[str], fetch: Fetch) -> list[str]:
        if "model_index.json" in names:
            check_pipeline(fetch(["model_index.json"]), self.source)
        layout = find_layout(names, self.source)
        check_format(layout, self.source, self.allow_pickle)
        return [name for name in (*layout.files, "model_index.json") if name in names]
