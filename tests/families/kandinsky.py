"""Kandinsky 2.2: the prior, the decoder, both in one folder."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDPMScheduler,
    KandinskyV22CombinedPipeline,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
    PriorTransformer,
    UnCLIPScheduler,
    VQModel,
)
from transformers import CLIPImageProcessor

from tests.families.common import SIZE, Family, louder, seeded
from tests.families.stable_diffusion import conditional_unet
from tests.families.text import WIDTH, clip_sight, clip_text, clip_tokenizer


def kandinsky_prior(folder: Path) -> KandinskyV22PriorPipeline:
    tokenizer = clip_tokenizer(folder / "made")
    prior = PriorTransformer(num_attention_heads=2, attention_head_dim=16, embedding_dim=WIDTH, num_layers=1).eval()
    torch.nn.init.ones_(prior.clip_std)
    return KandinskyV22PriorPipeline(
        prior=prior,
        text_encoder=clip_text(tokenizer, projected=True),
        tokenizer=tokenizer,
        image_encoder=clip_sight(32, 16),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample=True, clip_sample_range=10.0
        ),
    )


def movq() -> VQModel:
    """Two pixels a latent in each direction."""
    model = VQModel(
        block_out_channels=(32, 64),  # its norms have groups of 32
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )
    return louder(model.eval(), "decoder.conv_out", 1.0)


def kandinsky_decoder(**unet: Any) -> KandinskyV22Pipeline:
    return KandinskyV22Pipeline(
        unet=conditional_unet(
            out_channels=8,
            loudness=1.0,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            addition_embed_type="image",
            encoder_hid_dim=WIDTH,
            encoder_hid_dim_type="image_proj",
            resnet_time_scale_shift="scale_shift",
            **unet,
        ),
        movq=movq(),
        scheduler=DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1, variance_type="learned_range"
        ),
    )


def save_kandinsky_prior(folder: Path) -> Path:
    with seeded():
        kandinsky_prior(folder).save_pretrained(folder)
        return folder


def save_kandinsky_decoder(folder: Path) -> Path:
    """As on the hub: the decoder alone, whose model card names the prior."""
    with seeded():
        kandinsky_decoder().save_pretrained(folder)
    card = "---\nprior:\n- kandinsky-community/kandinsky-2-2-prior\ntags:\n- text-to-image\n---\n\n# Kandinsky 2.2\n"
    (folder / "README.md").write_text(card)
    return folder


def save_kandinsky(folder: Path) -> Path:
    """Prior and decoder in one folder."""
    with seeded():
        prior, decoder = kandinsky_prior(folder), kandinsky_decoder()
        parts = {f"prior_{name}": part for name, part in prior.components.items()}
        KandinskyV22CombinedPipeline(**decoder.components, **parts).save_pretrained(folder)
        return folder


def _embeddings() -> dict[str, Any]:
    """What the prior would answer for a prompt."""
    stream = torch.Generator().manual_seed(1)
    shown, plain = torch.randn(2, 1, WIDTH, generator=stream)
    return {"image_embeds": shown, "negative_image_embeds": plain}


FAMILIES = {
    "kandinsky22": Family(save_kandinsky, {"prompt": "a cat", "prior_num_inference_steps": 2, **SIZE}),
    "kandinsky22_decoder": Family(save_kandinsky_decoder, {**_embeddings(), **SIZE}),
    "kandinsky22_prior": Family(save_kandinsky_prior, {"prompt": "a cat"}, output="image_embeds"),
}
