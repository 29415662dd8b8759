"""Tiny checkpoints, saved by diffusers itself, and a cache that looks like that of the hub."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tiny_unet(seed: int = 0, **changes: Any) -> UNet2DModel:
    """A UNet2DModel of about 20,000 weights, the same at every call with the same arguments."""
    config: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DModel(**config | changes).eval()


def tiny_digits_unet(seed: int = 0) -> UNet2DModel:
    """Takes what the shipped MNIST network takes."""
    return tiny_unet(seed, sample_size=32, in_channels=1, out_channels=1, num_class_embeds=11)


def save_unet(folder: Path, net: UNet2DModel, **scheduler: Any) -> Path:
    """As training exports it: network and scheduler config in one folder."""
    net.save_pretrained(folder)
    DDPMScheduler(**scheduler).save_pretrained(folder)
    return folder


def save_pipeline(folder: Path, net: UNet2DModel, scheduler: Any = None, *, safe: bool = True) -> Path:
    """The folder layout: model_index.json, unet/ and scheduler/."""
    DDPMPipeline(unet=net, scheduler=scheduler or DDPMScheduler()).save_pretrained(folder, safe_serialization=safe)
    return folder


def save_flat_pipeline(folder: Path, net: UNet2DModel, scheduler: Any = None, *, safe: bool = True) -> Path:
    """The flat layout of the first diffusers checkpoints: everything beside model_index.json."""
    save_pipeline(folder, net, scheduler, safe=safe)
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            file.rename(folder / file.name)
        (folder / part).rmdir()
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def put_in_cache(cache: Path, id: str, checkpoint: Path) -> Path:
    """Place a checkpoint in ``cache`` (what HF_HUB_CACHE names) as the hub's client would; its snapshot folder."""
    repository = cache / f"models--{id.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(checkpoint, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot
