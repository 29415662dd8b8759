"""A tiny CLIP model, saved by transformers' own classes."""

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from tests.families.text import clip_tokenizer


def save_clip(folder: Path) -> Path:
    """A CLIP model with random weights; its embeddings have a common part, so that cosines are positive."""
    tokenizer = clip_tokenizer(folder)
    last = len(tokenizer) - 1
    common: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text = CLIPTextConfig(
        **common,
        num_attention_heads=2,
        vocab_size=last + 1,
        bos_token_id=last - 1,
        eos_token_id=last,
        pad_token_id=last,
    )
    sight = CLIPVisionConfig(**common, num_attention_heads=2, image_size=16, patch_size=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = CLIPConfig(text_config=text.to_dict(), vision_config=sight.to_dict(), projection_dim=8)
        model: Any = CLIPModel(config).eval()
    for norm, projection in (
        (model.text_model.final_layer_norm, model.text_projection),
        (model.vision_model.post_layernorm, model.visual_projection),
    ):
        torch.nn.init.ones_(norm.bias)
        torch.nn.init.normal_(norm.weight, std=0.5, generator=torch.Generator().manual_seed(1))
        torch.nn.init.uniform_(projection.weight, 0, 1, generator=torch.Generator().manual_seed(2))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder
