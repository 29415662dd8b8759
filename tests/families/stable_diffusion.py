"""SD 1.5, 2 and XL, their inpainting, refiner, ControlNet, IP-Adapter and motion."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import save_file

from tests.checkpoints import edit_json
from tests.families.common import LATENT_BETAS, SIZE, Family, louder, picture, save, seeded, vae
from tests.families.text import WIDTH, clip_sight, clip_text, clip_tokenizer


def conditional_unet(**changes: Any) -> UNet2DConditionModel:
    config: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    }
    loudness = changes.pop("loudness", 4.0)
    return louder(UNet2DConditionModel(**config | changes).eval(), "conv_out", loudness)


def save_sd15(
    folder: Path, kind: Any = StableDiffusionPipeline, scheduler: Any = None, unet: Any = None, **config: Any
) -> Path:
    """``unet``, ``config``: changes to the configs of the UNet and of the scheduler of SD 1.5, which is PNDM."""
    with seeded():
        tokenizer = clip_tokenizer(folder / "made")
        pipeline = kind(
            vae=vae(),
            text_encoder=clip_text(tokenizer),
            tokenizer=tokenizer,
            unet=conditional_unet(**unet or {}),
            scheduler=scheduler
            or PNDMScheduler(  # pyright: ignore[reportArgumentType]
                **LATENT_BETAS | {"skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False} | config
            ),
            safety_checker=None,  # pyright: ignore[reportArgumentType]
            feature_extractor=None,  # pyright: ignore[reportArgumentType]
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    if kind is StableDiffusionPipeline:
        _scheduler_as_on_the_hub(folder)
    return folder


def save_sd2(folder: Path) -> Path:
    """SD 2 predicts v."""
    return save_sd15(folder, prediction_type="v_prediction")


def save_sd_karras(folder: Path) -> Path:
    """Its scheduler config asks for more than a spacing."""
    save_sd15(folder)
    changes = {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}
    edit_json(folder / "scheduler" / "scheduler_config.json", **changes)
    edit_json(folder / "model_index.json", scheduler=["diffusers", "DPMSolverMultistepScheduler"])
    return folder


def save_sd_inpainting(folder: Path) -> Path:
    """Its UNet is shown the mask and the masked picture beside the sample."""
    save_sd15(folder, StableDiffusionInpaintPipeline, unet={"in_channels": 9})
    edit_json(folder / "scheduler" / "scheduler_config.json", clip_sample=False)  # as on the hub
    return folder


def save_sdxl(folder: Path, kind: Any = StableDiffusionXLPipeline, **unet: Any) -> Path:
    """``unet``: changes to the configuration of its UNet."""
    with seeded():
        kind(**sdxl_parts(folder, **unet), add_watermarker=False).save_pretrained(folder)
    if kind is StableDiffusionXLPipeline:
        _scheduler_as_on_the_hub(folder)
    return folder


def sdxl_parts(folder: Path, **unet: Any) -> dict[str, Any]:
    tokenizer = clip_tokenizer(folder / "made")
    config: dict[str, Any] = {
        "cross_attention_dim": 2 * WIDTH,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
    }
    return {
        "vae": vae(scaling_factor=0.13025, force_upcast=True),
        "text_encoder": clip_text(tokenizer),
        "text_encoder_2": clip_text(tokenizer, projected=True),
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "unet": conditional_unet(**config | unet),
        "scheduler": EulerDiscreteScheduler(**LATENT_BETAS, steps_offset=1, timestep_spacing="leading"),  # pyright: ignore[reportArgumentType]
    }


def save_sdxl_refiner(folder: Path) -> Path:
    """Knows one text encoder, and how beautiful a picture is."""
    shape = {"cross_attention_dim": WIDTH, "projection_class_embeddings_input_dim": 5 * 8 + WIDTH}
    with seeded():
        parts = sdxl_parts(folder, **shape) | {"text_encoder": None, "tokenizer": None}
        more: Any = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}
        return save(folder, StableDiffusionXLImg2ImgPipeline, **parts, **more, add_watermarker=False)


def random_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet whose answers are not zero, as those of an untrained one are."""
    with seeded():
        net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32))
        for block in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            torch.nn.init.normal_(block.weight, std=0.1)  # pyright: ignore
        torch.nn.init.normal_(net.controlnet_cond_embedding.conv_out.weight, std=0.3)
    return net


def save_sd_controlnet(folder: Path) -> Path:
    pipe = StableDiffusionPipeline.from_pretrained(save_sd15(folder / "base"), local_files_only=True)
    more: Any = {"controlnet": random_controlnet(pipe.unet), "requires_safety_checker": False}
    return save(folder, StableDiffusionControlNetPipeline, **pipe.components, **more)


def save_sdxl_controlnet(folder: Path) -> Path:
    with seeded():
        parts = sdxl_parts(folder)
        net = random_controlnet(parts["unet"])
        return save(folder, StableDiffusionXLControlNetPipeline, **parts, controlnet=net, add_watermarker=False)


IP_ADAPTER = "ip-adapter_sd15.safetensors"


def save_ip_adapter(folder: Path, unet: UNet2DConditionModel) -> Path:
    """The file of an IP-Adapter for a UNet, with the image encoder in a folder beside it."""
    with seeded():
        clip_sight(224, 32).save_pretrained(folder / "image_encoder")
        weights = {
            "image_proj.proj.weight": torch.randn(4 * WIDTH, WIDTH),
            "image_proj.proj.bias": torch.zeros(4 * WIDTH),
            "image_proj.norm.weight": torch.ones(WIDTH),
            "image_proj.norm.bias": torch.zeros(WIDTH),
        }
        across = [name for name in unet.attn_processors if "attn2" in name]
        for number, name in enumerate(across):
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features  # pyright: ignore
            for part in ("to_k_ip", "to_v_ip"):
                weights[f"ip_adapter.{2 * number + 1}.{part}.weight"] = torch.randn(width, WIDTH) * 0.3  # pyright: ignore
    save_file(weights, folder / IP_ADAPTER)
    return folder


def save_sd_with_ip_adapter(folder: Path) -> Path:
    pipe = StableDiffusionPipeline.from_pretrained(save_sd15(folder), local_files_only=True)
    save_ip_adapter(folder / "models", pipe.unet)
    return folder


def load_ip_adapter(pipe: Any, folder: Path) -> None:
    pipe.load_ip_adapter(str(folder), subfolder="models", weight_name=IP_ADAPTER, local_files_only=True)
    pipe.set_ip_adapter_scale(0.8)


def _scheduler_as_on_the_hub(folder: Path) -> None:
    """Add to the scheduler's config what only other classes than the checkpoint's own read."""
    common = {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}
    edit_json(folder / "scheduler" / "scheduler_config.json", **common)


_PROMPT = {"prompt": "a cat"}
_PAINTED = {**_PROMPT, **SIZE, "image": picture(), "mask_image": Image.new("L", (32, 32), 255)}
_CONTROLLED = {**_PROMPT, "image": picture(), **SIZE}

FAMILIES = {
    "sd15": Family(save_sd15),
    "sd2": Family(save_sd2),
    "sd15_karras": Family(save_sd_karras),
    "sd_inpainting": Family(save_sd_inpainting, _PAINTED),
    "sd_controlnet": Family(save_sd_controlnet, _CONTROLLED),
    "sd_ip_adapter": Family(
        save_sd_with_ip_adapter, {**_PROMPT, **SIZE, "ip_adapter_image": picture()}, finish=load_ip_adapter
    ),
    "sdxl": Family(save_sdxl),
    "sdxl_refiner": Family(save_sdxl_refiner, {**_PROMPT, "image": picture(), "strength": 0.8}),
    "sdxl_inpainting": Family(
        partial(save_sdxl, kind=StableDiffusionXLInpaintPipeline, in_channels=9), {**_PAINTED, "strength": 1.0}
    ),
    "sdxl_controlnet": Family(save_sdxl_controlnet, _CONTROLLED),
}
