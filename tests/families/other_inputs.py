"""Pipelines that begin with something else than a text, or evaluate their network in another way."""

from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKLTemporalDecoder,
    DDIMScheduler,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    FluxFillPipeline,
    FluxKontextPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from transformers import CLIPImageProcessor

from tests.families.common import LATENT_BETAS, SIZE, Family, louder, picture, save, seeded, vae
from tests.families.flow_images import flux_parts
from tests.families.kandinsky import movq
from tests.families.stable_diffusion import save_sd15
from tests.families.text import WIDTH, clip_sight, t5_text

SPATIO_TEMPORAL: Any = {
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
}


def save_dit(folder: Path) -> Path:
    """Classes of ImageNet. Its pipeline holds every sample twice, one for each side of guidance."""
    with seeded():
        transformer = DiTTransformer2DModel(
            sample_size=16,
            num_layers=1,
            patch_size=4,
            attention_head_dim=8,
            num_attention_heads=2,
            in_channels=4,
            out_channels=8,
            norm_elementwise_affine=False,
        )
        scheduler: Any = DDIMScheduler(**LATENT_BETAS, clip_sample=False)
        return save(
            folder, DiTPipeline, transformer=louder(transformer, "proj_out_2", 4.0), vae=vae(), scheduler=scheduler
        )


def save_lcm(folder: Path) -> Path:
    """Distilled: the guidance scale is an input, and each step adds noise."""
    scheduler = LCMScheduler(**LATENT_BETAS, clip_sample=False)  # pyright: ignore[reportArgumentType]
    return save_sd15(folder, LatentConsistencyModelPipeline, scheduler=scheduler, unet={"time_cond_proj_dim": 32})


def save_instruct_pix2pix(folder: Path) -> Path:
    """Guided by a text and by an image, which its UNet is shown beside the sample."""
    return save_sd15(folder, StableDiffusionInstructPix2PixPipeline, unet={"in_channels": 8})


def save_svd(folder: Path) -> Path:
    """An image becomes a video; karras levels, and time is log sigma."""
    with seeded():
        unet = UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            sample_size=16,
            cross_attention_dim=WIDTH,
            num_attention_heads=8,  # pyright: ignore[reportArgumentType]
            projection_class_embeddings_input_dim=96,
            addition_time_embed_dim=32,
            **SPATIO_TEMPORAL,
        )
        two_scales: Any = {"block_out_channels": (32, 64), "down_block_types": ("DownEncoderBlock2D",) * 2}
        autoencoder = AutoencoderKLTemporalDecoder(**two_scales)
        scheduler = EulerDiscreteScheduler(
            **LATENT_BETAS,  # pyright: ignore[reportArgumentType]
            prediction_type="v_prediction",
            sigma_max=700.0,
            sigma_min=0.002,
            steps_offset=1,
            timestep_spacing="leading",
            timestep_type="continuous",
            use_karras_sigmas=True,
        )
        return save(
            folder,
            StableVideoDiffusionPipeline,
            unet=louder(unet, "conv_out", 4.0),
            vae=autoencoder.eval(),
            image_encoder=clip_sight(224, 112),
            scheduler=scheduler,
            feature_extractor=CLIPImageProcessor(),
        )


def save_kandinsky3(folder: Path) -> Path:
    """A T5 encoder and a larger UNet, without a prior."""
    with seeded():
        encoder, tokenizer = t5_text()
        unet = Kandinsky3UNet(
            in_channels=4,
            time_embedding_dim=4,
            groups=2,
            attention_head_dim=4,
            layers_per_block=3,
            block_out_channels=(32, 64),
            cross_attention_dim=4,
            encoder_hid_dim=WIDTH,
        )
        return save(
            folder,
            Kandinsky3Pipeline,
            tokenizer=tokenizer,
            text_encoder=encoder,
            unet=louder(unet, "conv_out", 4.0),
            movq=movq(),
            scheduler=DDPMScheduler(beta_start=0.00085, beta_end=0.02),
        )


def save_flux_fill(folder: Path) -> Path:
    """Its transformer is shown the mask and the masked image beside the sample, all packed."""
    with seeded():
        return save(folder, FluxFillPipeline, **flux_parts(folder, in_channels=48, out_channels=16))


def save_flux_kontext(folder: Path) -> Path:
    """Its transformer is shown an image as further tokens."""
    with seeded():
        absent = {"image_encoder": None, "feature_extractor": None}
        return save(folder, FluxKontextPipeline, **flux_parts(folder), **absent)


_CAT = {"prompt": "a cat"}
_SHORT = {**_CAT, **SIZE, "max_sequence_length": 16}
_SHOWN = {"image": picture()}

FAMILIES = {
    "dit": Family(save_dit, {"class_labels": [1]}),
    "lcm": Family(save_lcm),
    "instruct_pix2pix": Family(save_instruct_pix2pix, {**_CAT, **_SHOWN}),
    "svd": Family(save_svd, {**SIZE, **_SHOWN, "num_frames": 3, "decode_chunk_size": 3}, "frames"),
    "kandinsky3": Family(save_kandinsky3, {**_CAT, "height": 64, "width": 64}),
    "flux_fill": Family(save_flux_fill, {**_SHORT, **_SHOWN, "mask_image": picture()}),
    "flux_kontext": Family(save_flux_kontext, {**_SHORT, **_SHOWN, "max_area": 1024, "_auto_resize": False}),
}
