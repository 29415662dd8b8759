"""Tiny Stable Diffusion checkpoints as one ``.safetensors`` file, in the names of the first code (CompVis)."""

import re
from pathlib import Path

from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0", "conv_out": "out.2", "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip
VAE = [
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"resnets\.0", "block_1"), (r"resnets\.1", "block_2"), ("mid_block", "mid"), (r"attentions\.0", "attn_1"),
    ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), (r"to_out\.0", "proj_out"),
    ("conv_norm_out", "norm_out"), ("conv_shortcut", "nin_shortcut"),
]  # fmt: skip


def unet_name(name: str, layers: int, attention: list[bool]) -> str:
    """``attention``: which of the up blocks have some."""
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
        way, block, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        number = block * (layers + 1) + layer + (way == "down")
        place = f"{'input' if way == 'down' else 'output'}_blocks.{number}.{int(kind == 'attentions')}"
        return f"{place}.{resnet(rest) if kind == 'resnets' else rest}"
    if match := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", name):
        return f"input_blocks.{(int(match[1]) + 1) * (layers + 1)}.0.op.{match[2]}"
    if match := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.(.*)", name):
        block = int(match[1])
        return f"output_blocks.{block * (layers + 1) + layers}.{1 + attention[block]}.{match[2]}"
    head = next(head for head in UNET if name.startswith(f"{head}."))
    rest = name.removeprefix(f"{head}.")
    return f"{UNET[head]}.{resnet(rest) if 'resnets' in head else rest}"


def resnet(name: str) -> str:
    head, _, rest = name.partition(".")
    return f"{RESNET[head]}.{rest}"


def vae_name(name: str, blocks: int) -> str:
    name = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{blocks - 1 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", name)
    for theirs, ours in VAE:
        name = re.sub(theirs, ours, name)
    return name


def vae_weights(pipe: StableDiffusionPipeline) -> dict[str, Tensor]:
    blocks = len(pipe.vae.config["block_out_channels"])
    return {vae_name(name, blocks): value.contiguous() for name, value in pipe.vae.state_dict().items()}


def save_vae_file(folder: Path, file: Path) -> Path:
    """Write the VAE of the pipeline in a folder of diffusers as one file."""
    save_file(vae_weights(StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)), file)
    return file


def save_single_file(folder: Path, file: Path) -> Path:
    """Write the pipeline in a folder of diffusers, an SD 1.x, as one file."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    attention = ["CrossAttn" in kind for kind in pipe.unet.config["up_block_types"]]
    layers = pipe.unet.config["layers_per_block"]
    unet = {unet_name(name, layers, attention): value for name, value in pipe.unet.state_dict().items()}
    weights = {f"model.diffusion_model.{name}": value for name, value in unet.items()}
    weights |= {f"first_stage_model.{name}": value for name, value in vae_weights(pipe).items()}
    text = {name.removeprefix("text_model."): value for name, value in pipe.text_encoder.state_dict().items()}
    weights |= {f"cond_stage_model.transformer.text_model.{name}": value for name, value in text.items()}
    save_file({name: value.clone().contiguous() for name, value in weights.items()}, file)
    return file
