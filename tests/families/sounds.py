"""Text-to-audio pipelines."""

from pathlib import Path

from diffusers import (
    AutoencoderOobleck,
    EDMDPMSolverMultistepScheduler,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableAudioProjectionModel,
)

from tests.families.common import Family, louder, save, seeded
from tests.families.text import WIDTH, t5_text


def save_stable_audio(folder: Path) -> Path:
    """Two channels of 2,000 samples a second; half a second at most."""
    with seeded():
        encoder, tokenizer = t5_text()
        tokenizer.model_max_length = 25
        transformer = StableAudioDiTModel(
            sample_size=250,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            num_key_value_attention_heads=2,
            cross_attention_dim=16,
            time_proj_dim=8,
            global_states_input_dim=32,
            cross_attention_input_dim=16,
        )
        autoencoder = AutoencoderOobleck(
            encoder_hidden_size=6,
            downsampling_ratios=[2, 2],
            decoder_channels=6,
            decoder_input_channels=4,
            channel_multiples=[2, 4],
            sampling_rate=2000,
        )
        return save(
            folder,
            StableAudioPipeline,
            transformer=louder(transformer, "proj_out", 4.0),
            vae=autoencoder.eval(),
            text_encoder=encoder,
            tokenizer=tokenizer,
            projection_model=StableAudioProjectionModel(
                text_encoder_dim=WIDTH, conditioning_dim=16, min_value=0, max_value=32
            ).eval(),
            scheduler=EDMDPMSolverMultistepScheduler(
                sigma_min=0.3,
                sigma_max=500.0,
                sigma_data=1.0,
                sigma_schedule="exponential",
                prediction_type="v_prediction",
            ),
        )


FAMILIES = {"stable_audio": Family(save_stable_audio, {"prompt": "a cat", "audio_end_in_s": 0.4}, output="audios")}
