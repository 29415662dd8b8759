"""The trained parts as a Stable Diffusion pipeline, in memory and as a folder."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffexp.files import write_text
from diffexp.train.emoji.prompts import special_tokens

TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


class TextToLatents(nn.Module):
    """A U-Net and the text encoder that it is trained with."""

    def __init__(self, network: Mapping[str, Any], text: Mapping[str, Any], tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        config = CLIPTextConfig(**special_tokens(tokenizer), **text)
        self.text = CLIPTextModel(config)
        self.unet = UNet2DConditionModel(**network, cross_attention_dim=config.hidden_size)

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """Model output (B, C, H, W) at integer ``timesteps`` (B,) for prompts of token ``ids`` (B, length)."""
        return self.unet(noisy, timesteps, self.text(ids).last_hidden_state).sample


def as_pipeline(
    net: TextToLatents, vae: AutoencoderKL, tokenizer: CLIPTokenizer, schedule: Mapping[str, Any]
) -> StableDiffusionPipeline:
    """The parts as a pipeline; they are not copied."""
    scheduler: Any = DDIMScheduler(
        **schedule,
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",  # begins at the noisiest level that was trained (Lin et al. 2023)
    )
    absent: Any = None
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=net.text,
        tokenizer=tokenizer,
        unet=net.unet,
        scheduler=scheduler,
        safety_checker=absent,
        feature_extractor=absent,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], steps: int, guidance: float, seed: int
) -> Tensor:
    """Images (N, 3, H, W) in [0, 1], one per prompt; image i has noise of its own that other prompts do not change."""
    noise = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    call: Any = pipeline
    return call(
        list(prompts), num_inference_steps=steps, guidance_scale=guidance, generator=noise, output_type="pt"
    ).images.float()


def save_half(pipeline: StableDiffusionPipeline, tokenizer: Path, target: Path) -> Path:
    """Write the pipeline to the folder ``target`` in half precision, whole or not at all.

    Args:
        tokenizer: folder with the tokenizer's files, which are copied: transformers 5 would leave out the vocabulary
            that earlier versions read.
    """
    with replace_folder(target) as whole:
        pipeline.save_pretrained(whole, safe_serialization=True)
        for part in ("unet", "vae", "text_encoder"):
            halve(whole / part)
            _forget_origin(whole / part / "config.json")
        shutil.rmtree(whole / "tokenizer")
        copy_tokenizer(tokenizer, whole / "tokenizer")
    return target


def _forget_origin(config: Path) -> None:
    """Drop the folder that a network was loaded from, which means nothing on other machines."""
    entries = json.loads(config.read_text(encoding="utf-8"))
    entries.pop("_name_or_path", None)
    write_text(config, json.dumps(entries, indent=2) + "\n")


@contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder that replaces ``target`` when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as made:
        whole = Path(made) / target.name
        whole.mkdir()
        yield whole
        if target.exists():
            target.rename(Path(made) / "before")
        whole.rename(target)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the files of a tokenizer to the folder ``target``."""
    target.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, target / name)


def halve(folder: Path) -> None:
    """Rewrite the weights in ``folder`` as float16, so that the network in memory keeps its precision."""
    for path in folder.glob("*.safetensors"):
        weights = load_file(path)
        save_file({key: tensor.half() for key, tensor in weights.items()}, path, metadata={"format": "pt"})
