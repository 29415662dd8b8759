"""Tiny text-to-image checkpoints of every family, with random weights, saved by diffusers' own classes.

32 x 32 pixels, a second or two to make, the same at every call. The weights are scaled so that pictures use the whole
range of grey values: a wrong coefficient anywhere shows in them.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    KandinskyV22CombinedPipeline,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    PriorTransformer,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from tests.checkpoints import edit_json

WIDTH = 32
"""Of every text embedding."""
LATENT_BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """Every byte is a word piece; four merges show that merging works."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = [chr(byte) for byte in visible] + [chr(256 + i) for i in range(len(hidden))]
    merges = ["c a", "ca t</w>", "d o", "do g</w>"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 77
    return tokenizer


def clip_text(tokenizer: CLIPTokenizer, projected: bool = False) -> Any:
    last = len(tokenizer) - 1
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=last - 1,
        eos_token_id=last,
        pad_token_id=last,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5_text() -> tuple[Any, Any]:
    """Encoder and tokenizer."""
    letters = [(letter, -2.0) for letter in "▁abcdefghijklmnopqrstuvwxyz0123456789"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters]
    config = T5Config(
        vocab_size=len(vocabulary) + 100, d_model=WIDTH, d_kv=8, d_ff=2 * WIDTH, num_layers=1, num_heads=4
    )
    return T5EncoderModel(config).eval(), T5Tokenizer(vocab=vocabulary)


def vae(**changes: Any) -> AutoencoderKL:
    """Two pixels a latent in each direction."""
    config: dict[str, Any] = {
        "block_out_channels": (16, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "sample_size": 32,
    }
    return _louder(AutoencoderKL(**config | changes).eval(), "decoder.conv_out", 3.0)


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
    return _louder(UNet2DConditionModel(**config | changes).eval(), "conv_out", loudness)


def save_sd15(folder: Path, kind: Any = StableDiffusionPipeline, channels: int = 4, **scheduler: Any) -> Path:
    """``scheduler``: changes to the scheduler config of SD 1.5, which is that of PNDM."""
    with _seeded():
        tokenizer = clip_tokenizer(folder / "made")
        pipeline = kind(
            vae=vae(),
            text_encoder=clip_text(tokenizer),
            tokenizer=tokenizer,
            unet=conditional_unet(in_channels=channels),
            scheduler=PNDMScheduler(  # pyright: ignore[reportArgumentType]
                **LATENT_BETAS | {"skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False} | scheduler
            ),
            safety_checker=None,  # pyright: ignore[reportArgumentType]
            feature_extractor=None,  # pyright: ignore[reportArgumentType]
            requires_safety_checker=False,
        )
    return _save(pipeline, folder)


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
    save_sd15(folder, StableDiffusionInpaintPipeline, channels=9)
    edit_json(folder / "scheduler" / "scheduler_config.json", clip_sample=False)  # as on the hub
    return folder


def save_sdxl(folder: Path) -> Path:
    with _seeded():
        tokenizer = clip_tokenizer(folder / "made")
        pipeline = StableDiffusionXLPipeline(
            vae=vae(scaling_factor=0.13025, force_upcast=True),
            text_encoder=clip_text(tokenizer),
            text_encoder_2=clip_text(tokenizer, projected=True),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=conditional_unet(
                cross_attention_dim=2 * WIDTH,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            ),
            scheduler=EulerDiscreteScheduler(  # pyright: ignore[reportArgumentType]
                **LATENT_BETAS, steps_offset=1, timestep_spacing="leading"
            ),
            add_watermarker=False,
        )
    return _save(pipeline, folder)


def kandinsky_prior(folder: Path) -> KandinskyV22PriorPipeline:
    tokenizer = clip_tokenizer(folder / "made")
    prior = PriorTransformer(num_attention_heads=2, attention_head_dim=16, embedding_dim=WIDTH, num_layers=1).eval()
    torch.nn.init.ones_(prior.clip_std)
    sight = CLIPVisionConfig(
        hidden_size=WIDTH,
        image_size=32,
        patch_size=16,
        projection_dim=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
    )
    return KandinskyV22PriorPipeline(
        prior=prior,
        text_encoder=clip_text(tokenizer, projected=True),
        tokenizer=tokenizer,
        image_encoder=CLIPVisionModelWithProjection(sight).eval(),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample=True, clip_sample_range=10.0
        ),
    )


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
        movq=_louder(
            VQModel(
                block_out_channels=(32, 64),  # its norms have groups of 32
                down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
                up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
                latent_channels=4,
                norm_num_groups=8,
                norm_type="spatial",
                num_vq_embeddings=12,
                vq_embed_dim=4,
            ).eval(),
            "decoder.conv_out",
            1.0,
        ),
        scheduler=DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1, variance_type="learned_range"
        ),
    )


def save_kandinsky_prior(folder: Path) -> Path:
    with _seeded():
        return _save(kandinsky_prior(folder), folder)


def save_kandinsky_decoder(folder: Path) -> Path:
    """As on the hub: the decoder alone, whose model card names the prior."""
    with _seeded():
        _save(kandinsky_decoder(), folder)
    card = "---\nprior:\n- kandinsky-community/kandinsky-2-2-prior\ntags:\n- text-to-image\n---\n\n# Kandinsky 2.2\n"
    (folder / "README.md").write_text(card)
    return folder


def save_kandinsky(folder: Path) -> Path:
    """Prior and decoder in one folder."""
    with _seeded():
        prior, decoder = kandinsky_prior(folder), kandinsky_decoder()
        parts = {f"prior_{name}": part for name, part in prior.components.items()}
        return _save(KandinskyV22CombinedPipeline(**decoder.components, **parts), folder)


def save_sd3(folder: Path, **scheduler: Any) -> Path:
    """A transformer that predicts the velocity of a flow; without its T5 encoder, as many people run it.

    ``scheduler``: changes to its scheduler config.
    """
    with _seeded():
        tokenizer = clip_tokenizer(folder / "made")
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
        ).eval()
        pipeline = StableDiffusion3Pipeline(
            transformer=_louder(transformer, "proj_out", 4.0),
            vae=vae(shift_factor=0.0609, scaling_factor=1.5305, use_quant_conv=False, use_post_quant_conv=False),
            text_encoder=clip_text(tokenizer, projected=True),
            text_encoder_2=clip_text(tokenizer, projected=True),
            text_encoder_3=None,  # pyright: ignore[reportArgumentType]
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            tokenizer_3=None,  # pyright: ignore[reportArgumentType]
            scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0} | scheduler),
        )
    return _save(pipeline, folder)


def save_flux(folder: Path, **scheduler: Any) -> Path:
    """Its pipeline hands sigmas and a shift that grows with the picture to its scheduler; latents are packed.

    ``scheduler``: changes to its scheduler config.
    """
    with _seeded():
        tokenizer = clip_tokenizer(folder / "made")
        encoder, t5_tokenizer = t5_text()
        transformer = FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
        ).eval()
        pipeline = FluxPipeline(
            transformer=_louder(transformer, "proj_out", 4.0),
            vae=vae(shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False, use_post_quant_conv=False),
            text_encoder=clip_text(tokenizer),
            tokenizer=tokenizer,
            text_encoder_2=encoder,
            tokenizer_2=t5_tokenizer,
            scheduler=FlowMatchEulerDiscreteScheduler(**{"use_dynamic_shifting": True, "shift": 3.0} | scheduler),
        )
    return _save(pipeline, folder)


def save_pixart(folder: Path) -> Path:
    """A transformer that predicts the noise and its variance. Its pipeline has sizes of its own, from 256 on."""
    with _seeded():
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
        ).eval()
        pipeline = PixArtSigmaPipeline(
            tokenizer=tokenizer,
            text_encoder=encoder,
            vae=vae(
                block_out_channels=(8, 8, 16, 16),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
            ),
            transformer=_louder(transformer, "proj_out", 4.0),
            scheduler=DPMSolverMultistepScheduler(**LATENT_BETAS),  # pyright: ignore[reportArgumentType]
        )
    return _save(pipeline, folder)


SAVE: Mapping[str, Callable[[Path], Path]] = {
    "sd15": save_sd15,
    "sd2": save_sd2,
    "sd15_karras": save_sd_karras,
    "sd_inpainting": save_sd_inpainting,
    "sdxl": save_sdxl,
    "kandinsky22": save_kandinsky,
    "kandinsky22_prior": save_kandinsky_prior,
    "kandinsky22_decoder": save_kandinsky_decoder,
    "sd3": save_sd3,
    "flux": save_flux,
    "flux_terminal": partial(save_flux, shift_terminal=0.02),
    "flux_karras": partial(save_flux, use_karras_sigmas=True),
    "flux_beta": partial(save_flux, use_beta_sigmas=True),
    "flux_static": partial(save_flux, use_dynamic_shifting=False),
    "sd3_dynamic": partial(save_sd3, use_dynamic_shifting=True),
    "sd3_karras": partial(save_sd3, use_karras_sigmas=True),
    "pixart": save_pixart,
}
"""The families; see the session's fixture ``tiny``."""


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def _louder(network: Any, layer: str, factor: float) -> Any:
    """Random networks whisper: their last layer is scaled so that outputs are of the size of noise."""
    weight = network.get_submodule(layer).weight
    with torch.no_grad():
        weight.mul_(factor)
        weight[4:] *= 0.01 if len(weight) == 8 else 1.0  # a predicted log variance lies in [-1, 1]
    return network


def _save(pipeline: DiffusionPipeline, folder: Path) -> Path:
    pipeline.save_pretrained(folder)
    if type(pipeline).__name__ in ("StableDiffusionPipeline", "StableDiffusionXLPipeline"):
        # As in the files on the hub: also what only other classes than the checkpoint's own read.
        common = {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}
        edit_json(folder / "scheduler" / "scheduler_config.json", **common)
    return folder
