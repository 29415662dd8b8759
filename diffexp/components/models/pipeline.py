"""Text-to-image pipelines of diffusers, from a folder, the local cache or the Hugging Face hub."""

from functools import partial
from typing import Any, Literal

import torch

from diffexp import model
from diffexp.components.checkpoints.pipeline_files import (
    Parts,
    choose_files,
    find_addition,
    find_network,
    find_pipeline,
    prior_of,
    read_index,
)
from diffexp.components.checkpoints.single_file import find_configs, find_file, is_file
from diffexp.components.models.base import Model, Runtime
from diffexp.errors import InputError

HALF = (torch.float16, torch.bfloat16)


@model(
    default_samples="one per prompt",
    idle=[
        "lora_file where lora=null",
        "lora_scale where lora=null",
        "ip_adapter_file where ip_adapter=null",
        "ip_adapter_scale where ip_adapter=null",
    ],
)
def pipeline(
    runtime: Runtime,
    *,
    id: str,
    revision: str | None = None,
    variant: str = "auto",
    allow_pickle: bool = False,
    config: str | None = None,
    vae: str | None = None,
    clip_skip: int | None = None,
    height: int | None = None,
    width: int | None = None,
    prior: str | None = None,
    prior_steps: int = 25,
    prior_guidance_scale: float = 4.0,
    controlnet: str | None = None,
    lora: str | None = None,
    lora_file: str = "pytorch_lora_weights.safetensors",
    lora_scale: float = 1.0,
    ip_adapter: str | None = None,
    ip_adapter_file: str = "models/ip-adapter_sd15.safetensors",
    ip_adapter_scale: float = 1.0,
    offload: Literal["none", "model", "sequential"] = "none",
    vae_tiling: bool = False,
    vae_slicing: bool = False,
    cache: Any = None,
) -> Model:
    """Any pipeline of diffusers with one denoising loop: of images, videos or sounds.

    The networks of SD 1.x and 2.x, SDXL and Kandinsky 2.2 are evaluated directly; every other pipeline answers through
    its own call, with its guidance, ControlNet and all that it adds, whichever loop or solver asks. Arguments of the
    call are options: ``pipe.max_sequence_length=128``; an image is named by its file. Noise schedule and prediction
    type come from the checkpoint's own scheduler config. A safety checker is not loaded. Sample i starts from the
    stream of ``diffexp.sample_seed(seed, i)``, in the pipeline as well:
    ``generator=[torch.Generator().manual_seed(...)]`` gives the same image without this package.

    Args:
        id: a folder, a repository on the hub such as ``stable-diffusion-v1-5/stable-diffusion-v1-5``, or one
            ``.safetensors`` file with all networks, as A1111, ComfyUI and civitai share them.
        revision: branch, tag or commit of the repository.
        variant: weights such as ``fp16``, or ``none``; ``auto``: fp16 where there are some and the dtype is a half one.
        allow_pickle: also take weights in pickle format (.bin), which can run any code when loaded.
        config: folder or repository with the configs and tokenizer of a checkpoint in one file; null: the repository
            that diffusers takes for such weights, from the cache or the hub.
        vae: another VAE, a folder, a repository or a ``.safetensors`` file; null: the checkpoint's own.
        clip_skip: last layers of the text encoder to leave out, as in diffusers: 1 here is "clip skip 2" of A1111.
        height: of the pictures in pixels, a multiple of 8; null: the model's own.
        width: likewise.
        prior: Kandinsky's prior, a folder or repository; null: in the checkpoint, or named by its model card.
        prior_steps: steps of the prior.
        prior_guidance_scale: its guidance.
        controlnet: a ControlNet (folder or repository), for ``loop=pipeline loop.control_image=...``.
        lora: a LoRA (folder or repository).
        lora_file: its file.
        lora_scale: its strength.
        ip_adapter: an IP-Adapter (folder or repository), for ``loop=pipeline loop.ip_adapter_image=...``.
        ip_adapter_file: its file; the image encoder lies beside it.
        ip_adapter_scale: its strength.
        offload: keep parts on the CPU while they are not needed (``model``), or every layer (``sequential``).
        vae_tiling: decode large pictures tile by tile.
        vae_slicing: decode a pipeline's batch one by one.
        cache: a cache of diffusers for transformers (``first_block``, ``faster``, ``mag``, ...), by name or as
            ``{name: first_block, threshold: 0.1}``. ``faster`` needs a batch that guidance doubles, and a network that
            returns latents in the layout that it takes them in: Latte, Mochi, CogVideoX.

    Raises:
        InputError: no such checkpoint, no network to get it, or not one that can be used.
    """
    half = runtime.dtype in HALF or (runtime.dtype is None and runtime.device.type == "cuda")
    wanted = {"auto": "fp16" if half else None, "none": None}.get(variant, variant)
    file = find_file(id, "model.id") if is_file(id) else None
    if file and (revision, variant) != (None, "auto"):
        raise InputError(f"model.id={id} is one file; leave model.revision and model.variant out")
    if config and not file:
        raise InputError(f"model.config={config} is for a checkpoint in one file; {id} has its own")
    choose = partial(choose_files, source=f"model.id={id}", variant=wanted, allow_pickle=allow_pickle)
    found = find_configs(file, config) if file else find_pipeline(id, "model.id", choose, revision)
    if variant not in ("auto", "none") and found.choice.variant != variant:
        raise InputError(f"model.variant={variant}: {id} has no such weights; choose auto or none")
    index = read_index(found.folder, f"model.id={id}")
    named = prior or prior_of(found.folder, index, f"model.id={id}")
    parts = Parts(
        found,
        file,
        vae=(find_file if is_file(vae) else find_network)(vae, "model.vae") if vae else None,
        prior=find_pipeline(named, "model.prior", choose) if named else None,
        controlnet=find_network(controlnet, "model.controlnet") if controlnet else None,
        lora=find_addition("model.lora", lora, lora_file, lora_scale) if lora else None,
        ip_adapter=find_addition("model.ip_adapter", ip_adapter, ip_adapter_file, ip_adapter_scale, "image_encoder")
        if ip_adapter
        else None,
    )

    # diffusers takes seconds to import: whatever is wrong with the files has been said by now.
    from diffexp.components.checkpoints.quiet import quietly

    with quietly():
        from diffexp.components.models.text_to_image.build import Memory, build, loaded

        pipe = loaded(runtime, parts, Memory(offload, vae_tiling, vae_slicing, cache), f"model.id={id}")
    return build(
        runtime,
        pipe,
        id=id,
        size=(height, width),
        clip_skip=clip_skip,
        hash_weights=parts.sha256,
        prior_options={"prior_steps": prior_steps, "prior_guidance_scale": prior_guidance_scale},
    )
