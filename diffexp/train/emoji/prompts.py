"""The prompts of every drawing as token ids, drawn at random in training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from diffexp.train.emoji.data import Drawing


@dataclass(frozen=True)
class Prompts:
    """Token ids (rows, length): of each drawing, each name with and without its style; last, the empty prompt."""

    ids: Tensor
    first: Tensor
    """The first row of a drawing (N,)."""
    names: Tensor
    """How many names a drawing has (N,)."""

    @property
    def empty(self) -> Tensor:
        """Ids of the empty prompt (length,)."""
        return self.ids[-1]

    def draw(self, chosen: Tensor, no_style: float, no_prompt: float, generator: torch.Generator) -> Tensor:
        """Ids (B, length) of a random name for each drawing; at random without its style, or without any words."""
        name, style, prompt = torch.rand(3, len(chosen), generator=generator)
        rows = self.first[chosen] + 2 * (name * self.names[chosen]).long() + (style < no_style)
        return self.ids[torch.where(prompt < no_prompt, len(self.ids) - 1, rows)]

    def usual(self, chosen: Tensor) -> Tensor:
        """Ids (B, length) of the commonest name, with its style."""
        return self.ids[self.first[chosen]]


def tokenize(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Token ids (N, length), padded or cut to the model's length."""
    return tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids


def special_tokens(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """Those fields of a text encoder's config that follow from its tokenizer."""
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return special | {"vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}


def all_prompts(drawings: Sequence[Drawing], tokenizer: CLIPTokenizer) -> Prompts:
    """Tokenize every name of every drawing."""
    texts = [
        text for drawing in drawings for name in drawing.names for text in (f"{name}, {drawing.style}", name)
    ]  # fmt: skip
    names = torch.tensor([len(drawing.names) for drawing in drawings])
    return Prompts(tokenize(tokenizer, [*texts, ""]), 2 * (names.cumsum(0) - names), names)
