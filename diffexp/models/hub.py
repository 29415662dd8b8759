"""Unconditional diffusers checkpoints, from a folder, the local cache or the Hugging Face hub."""

import re
from pathlib import Path

from diffexp.errors import InputError
from diffexp.models.base import Model, Runtime
from diffexp.models.download import find_on_hub
from diffexp.models.labels import ClassLabels
from diffexp.models.layout import check_format, check_network, check_pipeline, find_layout, list_files, read_json
from diffexp.registry import model


@model
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
    folder = _locate(id, revision, allow_pickle)
    check_pipeline(folder, source)
    layout = find_layout(list_files(folder), source)
    check_format(layout, source, allow_pickle)
    check_network(read_json(folder / layout.network / "config.json"), source)
    if layout.scheduler is None:
        raise InputError(f"{source} has no scheduler_config.json, which says how the network was trained")

    # diffusers takes seconds to import: whatever is wrong with the files has been said by now.
    from diffexp.models.training import read_training
    from diffexp.models.unet import load_unet

    training = read_training(read_json(folder / layout.scheduler), source)
    return load_unet(runtime, folder, layout, training, id=id, labels=lambda n: ClassLabels(id, n) if n else None)


def _locate(id: str, revision: str | None, allow_pickle: bool) -> Path:
    folder = Path(id).expanduser()
    if id and folder.is_dir():
        if revision is not None:
            raise InputError(f"model.revision={revision}: {id} is a folder and has no revisions; leave it out")
        return folder
    if re.match(r"[./~]", id) or id.count("/") > 1:
        raise InputError(f"model.id={id}: no such folder")
    return find_on_hub(id, revision, allow_pickle)
