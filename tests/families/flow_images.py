"""Text-to-image transformers that predict the velocity of a flow."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
    FluxControlNetPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from tests.families.common import FLOW_VAE, SIZE, Family, deep_vae, louder, picture, save, seeded, vae
from tests.families.text import (
    WIDTH,
    clip_text,
    clip_tokenizer,
    gemma_text,
    qwen3_text,
    qwen_vl_text,
    t5_text,
    umt5_text,
)


def save_sd3(folder: Path, t5: bool = False, **scheduler: Any) -> Path:
    """``t5``: whether it has its T5 encoder, which many people leave out; ``scheduler``: changes to its config."""
    with seeded():
        tokenizer = clip_tokenizer(folder / "made")
        encoder, t5_tokenizer = t5_text(2 * WIDTH) if t5 else (None, None)
        transformer = SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=2 * WIDTH,
            caption_projection_dim=32,
            pooled_projection_dim=2 * WIDTH,
        )
        return save(
            folder,
            StableDiffusion3Pipeline,
            transformer=louder(transformer, "proj_out", 4.0),
            vae=vae(shift_factor=0.0609, scaling_factor=1.5305, **FLOW_VAE),
            text_encoder=clip_text(tokenizer, projected=True),
            text_encoder_2=clip_text(tokenizer, projected=True),
            text_encoder_3=encoder,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            tokenizer_3=t5_tokenizer,
            scheduler=_flow(**{"shift": 3.0} | scheduler),
        )


NOTHING: Mapping[str, Any] = {}
FLUX: Mapping[str, Any] = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": WIDTH,
    "pooled_projection_dim": WIDTH,
    "axes_dims_rope": (4, 4, 8),
}


def save_flux(folder: Path, **scheduler: Any) -> Path:
    """Its pipeline hands sigmas and a shift that grows with the picture to its scheduler; latents are packed.

    ``scheduler``: changes to its scheduler config.
    """
    with seeded():
        return save(folder, FluxPipeline, **flux_parts(folder, scheduler=scheduler))


def save_flux_controlnet(folder: Path) -> Path:
    with seeded():
        net = FluxControlNetModel(**FLUX).eval()
        for block in (*net.controlnet_blocks, *net.controlnet_single_blocks, net.controlnet_x_embedder):
            torch.nn.init.normal_(block.weight, std=0.3)  # pyright: ignore  (zero, untrained)
        return save(folder, FluxControlNetPipeline, **flux_parts(folder), controlnet=net)


def flux_parts(folder: Path, scheduler: Mapping[str, Any] = NOTHING, **transformer: Any) -> dict[str, Any]:
    """``scheduler``, ``transformer``: changes to their configs."""
    tokenizer = clip_tokenizer(folder / "made")
    encoder, t5_tokenizer = t5_text()
    return {
        "transformer": louder(FluxTransformer2DModel(**{**FLUX, **transformer}), "proj_out", 4.0),
        "vae": vae(shift_factor=0.1159, scaling_factor=0.3611, **FLOW_VAE),
        "text_encoder": clip_text(tokenizer),
        "tokenizer": tokenizer,
        "text_encoder_2": encoder,
        "tokenizer_2": t5_tokenizer,
        "scheduler": _flow(**{"use_dynamic_shifting": True, "shift": 3.0, **scheduler}),
    }


def save_chroma(folder: Path) -> Path:
    """Flux's blocks without the pooled text: classifier-free guidance, and a mask of the prompt's tokens."""
    with seeded():
        encoder, tokenizer = t5_text()
        transformer = ChromaTransformer2DModel(
            **{name: value for name, value in FLUX.items() if name != "pooled_projection_dim"},
            approximator_hidden_dim=32,
            approximator_layers=1,
            approximator_num_channels=16,
        )
        return save(
            folder,
            ChromaPipeline,
            transformer=louder(transformer, "proj_out", 4.0),
            vae=vae(shift_factor=0.1159, scaling_factor=0.3611, **FLOW_VAE),
            text_encoder=encoder,
            tokenizer=tokenizer,
            scheduler=_flow(use_dynamic_shifting=True),
        )


def save_qwen_image(folder: Path) -> Path:
    """Its latents are packed, and its autoencoder is one of videos."""
    with seeded():
        encoder, tokenizer = qwen_vl_text()
        transformer = QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(8, 4, 4),
        )
        autoencoder = AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.1] * 4,
            latents_std=[0.8] * 4,
        )
        return save(
            folder,
            QwenImagePipeline,
            transformer=louder(transformer, "proj_out", 4.0),
            vae=louder(autoencoder, "decoder.conv_out", 3.0),
            text_encoder=encoder,
            tokenizer=tokenizer,
            scheduler=_flow(use_dynamic_shifting=True, shift_terminal=0.02),
        )


def save_aura_flow(folder: Path) -> Path:
    with seeded():
        encoder, tokenizer = umt5_text()
        transformer = AuraFlowTransformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=WIDTH,
            pos_embed_max_size=256,
        )
        return save(
            folder,
            AuraFlowPipeline,
            transformer=louder(transformer, "proj_out", 4.0),
            vae=vae(),
            text_encoder=encoder,
            tokenizer=tokenizer,
            scheduler=_flow(shift=1.73),
        )


def save_lumina2(folder: Path) -> Path:
    """Its time runs the other way, and its network answers with the velocity's opposite."""
    with seeded():
        encoder, tokenizer = gemma_text()
        transformer = Lumina2Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            hidden_size=16,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            axes_dim_rope=(4, 2, 2),
            axes_lens=(300, 64, 64),
            cap_feat_dim=WIDTH,
        )
        return save(
            folder,
            Lumina2Pipeline,
            transformer=louder(transformer, "norm_out.linear_2", 4.0),
            vae=deep_vae(shift_factor=0.1159, scaling_factor=0.3611, **FLOW_VAE),
            text_encoder=encoder,
            tokenizer=tokenizer,
            scheduler=_flow(shift=6.0),
        )


def save_sana(folder: Path) -> Path:
    """Linear attention over the latents of a deep compression autoencoder."""
    with seeded():
        encoder, tokenizer = gemma_text()
        transformer = SanaTransformer2DModel(
            sample_size=16,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=8,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=WIDTH,
        )
        autoencoder = AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),  # pyright: ignore[reportArgumentType]
            decoder_block_types=("ResBlock", "EfficientViTBlock"),  # pyright: ignore[reportArgumentType]
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            scaling_factor=0.41407,
        )
        return save(
            folder,
            SanaPipeline,
            transformer=louder(transformer, "proj_out", 4.0),
            vae=louder(autoencoder, "decoder.conv_out", 3.0),
            text_encoder=encoder,
            tokenizer=tokenizer,
            scheduler=_flow(shift=3.0),
        )


def save_z_image(folder: Path) -> Path:
    """A single stream over text and picture, which its pipeline hands over as lists."""
    with seeded():
        encoder, tokenizer = qwen3_text()
        transformer = ZImageTransformer2DModel(
            all_patch_size=(2,),
            all_f_patch_size=(1,),
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=WIDTH,
            axes_dims=[8, 4, 4],
            axes_lens=[256, 32, 32],
        )
        for token in (transformer.x_pad_token, transformer.cap_pad_token):  # of memory as it was found
            torch.nn.init.ones_(token)
        return save(
            folder,
            ZImagePipeline,
            transformer=louder(transformer, "all_final_layer.2-1.linear", 4.0),
            vae=vae(shift_factor=0.1159, scaling_factor=0.3611, **FLOW_VAE),
            text_encoder=encoder,
            tokenizer=tokenizer,
            scheduler=_flow(shift=3.0),
        )


def _flow(**config: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**config)


_CALL: Mapping[str, Any] = {"prompt": "a cat", **SIZE}
_SHORT = {**_CALL, "max_sequence_length": 16}

FAMILIES = {
    "sd3": Family(save_sd3),
    "sd3_t5": Family(partial(save_sd3, t5=True), _SHORT),
    "sd3_dynamic": Family(partial(save_sd3, use_dynamic_shifting=True)),
    "sd3_karras": Family(partial(save_sd3, use_karras_sigmas=True)),
    "flux": Family(save_flux, _SHORT),
    "flux_terminal": Family(partial(save_flux, shift_terminal=0.02)),
    "flux_karras": Family(partial(save_flux, use_karras_sigmas=True)),
    "flux_beta": Family(partial(save_flux, use_beta_sigmas=True)),
    "flux_static": Family(partial(save_flux, use_dynamic_shifting=False)),
    "flux_controlnet": Family(save_flux_controlnet, {**_SHORT, "control_image": picture()}),
    "chroma": Family(save_chroma, {**_SHORT, "negative_prompt": "two dogs"}),
    "qwen_image": Family(save_qwen_image, {**_SHORT, "negative_prompt": "two dogs", "true_cfg_scale": 3.0}),
    "aura_flow": Family(save_aura_flow, _SHORT),
    "lumina2": Family(save_lumina2, _SHORT),
    "sana": Family(
        save_sana, {**_SHORT, "complex_human_instruction": None, "use_resolution_binning": False, "negative_prompt": ""}
    ),
    "z_image": Family(save_z_image, {**_SHORT, "guidance_scale": 3.0, "negative_prompt": "two dogs"}),
}
