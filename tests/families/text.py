"""Tiny text encoders with their tokenizers, with random weights."""

import json
from pathlib import Path
from typing import Any

from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

WIDTH = 32
"""Of every text embedding."""


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """Every byte is a word piece; four merges show that merging works."""
    letters = _letters()
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


def clip_sight(image_size: int, patch_size: int) -> CLIPVisionModelWithProjection:
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        image_size=image_size,
        patch_size=patch_size,
        projection_dim=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
    )
    return CLIPVisionModelWithProjection(config).eval()


def t5_text(width: int = WIDTH) -> tuple[Any, Any]:
    """Encoder and tokenizer."""
    letters = [(letter, -2.0) for letter in "▁abcdefghijklmnopqrstuvwxyz0123456789"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters]
    config = T5Config(
        vocab_size=len(vocabulary) + 100, d_model=width, d_kv=8, d_ff=2 * WIDTH, num_layers=1, num_heads=4
    )
    return T5EncoderModel(config).eval(), T5Tokenizer(vocab=vocabulary)


def umt5_text() -> tuple[Any, Any]:
    """T5 whose layers each have positions of their own, with T5's tokenizer."""
    _, tokenizer = t5_text()
    config = UMT5Config(vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=2 * WIDTH, num_layers=1, num_heads=4)
    return UMT5EncoderModel(config).eval(), tokenizer


def bert_text() -> tuple[Any, Any]:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=77)
    config = BertConfig(vocab_size=len(words), **_DECODER)
    return BertModel(config).eval(), tokenizer


def gemma_text() -> tuple[Any, Any]:
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"▁abcdefghijklmnopqrstuvwxyz0123456789"]
    tokenizer = GemmaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    config = Gemma2Config(vocab_size=len(words), **_DECODER, num_key_value_heads=4, head_dim=8, sliding_window=64)
    return Gemma2Model(config).eval(), tokenizer


def qwen3_text() -> tuple[Any, Any]:
    tokenizer = qwen_tokenizer()
    config = Qwen3Config(vocab_size=len(tokenizer), **_DECODER, num_key_value_heads=4, head_dim=8)
    return Qwen3Model(config).eval(), tokenizer


def qwen_vl_text() -> tuple[Any, Any]:
    """Of pictures and text; pipelines ask it about text."""
    tokenizer = qwen_tokenizer()
    config = Qwen2_5_VLConfig(
        text_config={
            **_DECODER,
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 4,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
        },
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval(), tokenizer


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Bytes, the marks of a conversation, and how one is written down."""
    words = [*_letters(), "<|endoftext|>"]
    tokenizer = Qwen2Tokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})  # pyright: ignore
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


_DECODER: Any = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def _letters() -> list[str]:
    """The 256 characters that byte-level tokenizers write bytes as."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) for byte in visible] + [chr(256 + i) for i in range(len(hidden))]
