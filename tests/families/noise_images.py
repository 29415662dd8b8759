"""Text-to-image transformers that predict the noise or v."""

from pathlib import Path

from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)

from tests.families.common import LATENT_BETAS, SIZE, Family, deep_vae, louder, save, seeded
from tests.families.text import WIDTH, bert_text, t5_text


def save_pixart(folder: Path) -> Path:
    """A transformer that predicts the noise and its variance. Its pipeline has sizes of its own, from 256 on."""
    with seeded():
        encoder, tokenizer = t5_text()
        transformer = PixArtTransformer2DModel(
            sample_size=32,
            in_channels=4,
            out_channels=8,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            cross_attention_dim=32,
            caption_channels=WIDTH,
            use_additional_conditions=False,
        )
        return save(
            folder,
            PixArtSigmaPipeline,
            tokenizer=tokenizer,
            text_encoder=encoder,
            vae=deep_vae(),
            transformer=louder(transformer, "proj_out", 4.0),
            scheduler=DPMSolverMultistepScheduler(**LATENT_BETAS),  # pyright: ignore[reportArgumentType]
        )


def save_hunyuan_dit(folder: Path) -> Path:
    """Two text encoders, v-prediction, and a variance beside it."""
    with seeded():
        encoder, tokenizer = bert_text()
        encoder_2, tokenizer_2 = t5_text()
        transformer = HunyuanDiT2DModel(
            sample_size=16,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=3,
            in_channels=4,
            cross_attention_dim=WIDTH,
            cross_attention_dim_t5=WIDTH,
            pooled_projection_dim=16,
            hidden_size=24,
            text_len=77,
            text_len_t5=256,
            activation_fn="gelu-approximate",
        )
        return save(
            folder,
            HunyuanDiTPipeline,
            transformer=louder(transformer, "proj_out", 4.0),
            vae=deep_vae(),
            text_encoder=encoder,
            tokenizer=tokenizer,
            text_encoder_2=encoder_2,
            tokenizer_2=tokenizer_2,
            scheduler=DDPMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction", steps_offset=1),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


FAMILIES = {
    "pixart": Family(
        save_pixart, {"prompt": "a cat", **SIZE, "use_resolution_binning": False, "max_sequence_length": 16}
    ),
    "hunyuan_dit": Family(save_hunyuan_dit, {"prompt": "a cat", **SIZE, "use_resolution_binning": False}),
}
