"""Text-to-video pipelines: nine frames of 32 x 32 pixels, or what their autoencoder makes of three latent ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    LattePipeline,
    LatteTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    MotionAdapter,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)

from tests.families.common import LATENT_BETAS, SIZE, Family, deep_vae, louder, save, seeded, vae
from tests.families.stable_diffusion import conditional_unet
from tests.families.text import WIDTH, clip_text, clip_tokenizer, t5_text, umt5_text


def save_wan(folder: Path) -> Path:
    """Its checkpoints come with UniPC, which predicts a flow here."""
    with seeded():
        encoder, tokenizer = umt5_text()
        transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=WIDTH,
            freq_dim=32,
            ffn_dim=32,
            num_layers=1,
            rope_max_seq_len=32,
        )
        autoencoder = AutoencoderKLWan(
            base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        )
        return save(
            folder,
            WanPipeline,
            transformer=louder(transformer, "proj_out", 4.0),
            vae=louder(autoencoder, "decoder.conv_out", 3.0),
            text_encoder=encoder,
            tokenizer=tokenizer,
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
            ),
            transformer_2=None,
        )


def save_ltx(folder: Path) -> Path:
    """Packed latents, a shift that grows with their number, and a stretch to a last level."""
    with seeded():
        encoder, tokenizer = t5_text()
        transformer = LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=4,
            attention_head_dim=8,
            cross_attention_dim=32,
            num_layers=1,
            caption_channels=WIDTH,
        )
        autoencoder = AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
            spatio_temporal_scaling=(True, True, False, False),
            decoder_spatio_temporal_scaling=(True, True, False, False),
            patch_size=1,
        )
        return save(
            folder,
            LTXPipeline,
            transformer=louder(transformer, "proj_out", 4.0),
            vae=louder(autoencoder, "decoder.conv_out.conv", 3.0),
            text_encoder=encoder,
            tokenizer=tokenizer,
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1
            ),
        )


_FRAMES_AND_TWO_SCALES = ("CogVideoXDownBlock3D",) * 4, ("CogVideoXUpBlock3D",) * 4


def save_cogvideox(folder: Path) -> Path:
    """v-prediction with a terminal SNR of zero, by a class of its own."""
    down, up = _FRAMES_AND_TWO_SCALES
    with seeded():
        encoder, tokenizer = t5_text()
        transformer = CogVideoXTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=8,
            in_channels=4,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=WIDTH,
            num_layers=1,
            sample_width=4,
            sample_height=4,
            sample_frames=9,
            max_text_seq_length=16,
        )
        autoencoder = AutoencoderKLCogVideoX(
            down_block_types=down,  # pyright: ignore[reportArgumentType]
            up_block_types=up,  # pyright: ignore[reportArgumentType]
            block_out_channels=(8, 8, 8, 8),  # pyright: ignore[reportArgumentType]
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
        )
        return save(
            folder,
            CogVideoXPipeline,
            transformer=louder(transformer, "proj_out", 4.0),
            vae=louder(autoencoder, "decoder.conv_out.conv", 3.0),
            text_encoder=encoder,
            tokenizer=tokenizer,
            scheduler=CogVideoXDDIMScheduler(
                **LATENT_BETAS,  # pyright: ignore[reportArgumentType]
                prediction_type="v_prediction",
                rescale_betas_zero_snr=True,
                snr_shift_scale=3.0,
                timestep_spacing="trailing",
                clip_sample=False,
                set_alpha_to_one=True,
            ),
        )


def save_latte(folder: Path) -> Path:
    with seeded():
        encoder, tokenizer = t5_text()
        transformer = LatteTransformer3DModel(
            sample_size=4,
            video_length=4,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=3,
            caption_channels=WIDTH,
            in_channels=4,
            cross_attention_dim=24,
            out_channels=8,
            attention_bias=True,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
        )
        return save(
            folder,
            LattePipeline,
            transformer=louder(transformer, "proj_out", 4.0),
            vae=deep_vae(),
            text_encoder=encoder,
            tokenizer=tokenizer,
            scheduler=DDIMScheduler(beta_start=0.0001, beta_end=0.02, clip_sample=False),
        )


def save_mochi(folder: Path) -> Path:
    """Its sigmas are linear and quadratic by turns, and its autoencoder triples the frames twice."""
    with seeded():
        encoder, tokenizer = t5_text()
        transformer = MochiTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            pooled_projection_dim=16,
            in_channels=12,
            text_embed_dim=WIDTH,
            time_embed_dim=4,
            max_sequence_length=16,
        )
        autoencoder = AutoencoderKLMochi(
            encoder_block_out_channels=(32, 32, 32, 32),  # its norms have groups of 32
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
        )
        return save(
            folder,
            MochiPipeline,
            transformer=louder(transformer, "proj_out", 4.0),
            vae=louder(autoencoder, "decoder.proj_out", 3.0),
            text_encoder=encoder,
            tokenizer=tokenizer,
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, invert_sigmas=True),
        )


def save_animatediff(folder: Path) -> Path:
    """The U-Net of SD with motion between its layers."""
    channels = (16, 32)
    with seeded():
        tokenizer = clip_tokenizer(folder / "made")
        motion = MotionAdapter(
            block_out_channels=channels,
            motion_layers_per_block=1,
            motion_norm_num_groups=8,
            motion_num_attention_heads=4,
        )
        return save(
            folder,
            AnimateDiffPipeline,
            vae=vae(),
            text_encoder=clip_text(tokenizer),
            tokenizer=tokenizer,
            unet=conditional_unet(),
            motion_adapter=motion,
            scheduler=DDIMScheduler(  # pyright: ignore[reportArgumentType]
                beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False
            ),
        )


_CALL: Mapping[str, Any] = {"prompt": "a cat", **SIZE}
_SHORT = {**_CALL, "max_sequence_length": 16}


def _frames(save: Any, call: Mapping[str, Any]) -> Family:
    return Family(save, call, output="frames")


FAMILIES = {
    "wan": _frames(save_wan, {**_SHORT, "num_frames": 9}),
    "ltx": _frames(save_ltx, {**_SHORT, "num_frames": 9}),
    "cogvideox": _frames(save_cogvideox, {**_SHORT, "num_frames": 9}),
    "latte": _frames(save_latte, {**_CALL, "video_length": 4, "clean_caption": False}),
    "mochi": _frames(save_mochi, {**_SHORT, "num_frames": 7}),
    "animatediff": _frames(save_animatediff, {**_CALL, "num_frames": 3}),
}
