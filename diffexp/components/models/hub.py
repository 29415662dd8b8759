"""Unconditional diffusers checkpoints, from a folder, the local cache or the Hugging Face hub."""

from collections.abc import Sequence

from diffexp import model
from diffexp.components.checkpoints.download import Fetch, Spec, locate
from diffexp.components.checkpoints.layout import (
    INDEX,
    Incomplete,
    Layout,
    check_format,
    check_network,
    check_pipeline,
    find_layout,
    list_files,
    read_config,
)
from diffexp.components.models.base import Model, Runtime
from diffexp.components.models.labels import ClassLabels


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

    def find(names: Sequence[str], fetch: Fetch) -> Layout:
        if INDEX in names:
            check_pipeline(fetch([INDEX]), source)
        layout = find_layout(names, source)
        check_format(layout, source, allow_pickle)
        if layout.scheduler is None:
            raise Incomplete(f"{source} has no scheduler_config.json, which says how the network was trained")
        return layout

    def choose(names: Sequence[str], fetch: Fetch) -> list[str]:
        return [name for name in (*find(names, fetch).files, INDEX) if name in names]

    folder = locate(id, revision, Spec(choose, (INDEX, "config.json", "unet/config.json")))
    layout = find(list_files(folder), lambda _: folder)
    check_network(read_config(folder / layout.network / "config.json"), source)

    # diffusers takes seconds to import: whatever is wrong with the files has been said by now.
    from diffexp.components.checkpoints.scheduler_config import read_training
    from diffexp.components.models.unet import load_unet

    training = read_training(read_config(folder / str(layout.scheduler)), source)
    return load_unet(runtime, folder, layout, training, id=id, labels=lambda n: ClassLabels(id, n) if n else None)
