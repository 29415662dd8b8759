"""Similarity of images and their prompts in the embedding space of CLIP."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from diffexp import metric
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.clip import ClipMetric


@metric(higher_is_better=("clip_score",), ranges={"clip_score": (0, 100)}, needed={"clip_score": 16})
class ClipScore(ClipMetric):
    """``clip_score/<model>``: 100 times the cosine between CLIP's embeddings of an image and its prompt, at least 0.

    Hessel et al. 2021 (arXiv:2104.08718), with the weight 100 of torchmetrics' CLIPScore, whose values these are; one
    per sample, unbiased, larger is better; it takes 16 to be ranked. Only embeddings are stored until the run ends. A
    prompt that is too long for CLIP is cut. It does not apply where the model takes no prompt or CLIP is not available.

    Args:
        model: a CLIP model of transformers: a folder, or a repository on the hub; null: the one that ships for
            ``model=emoji``, else openai/clip-vit-base-patch16.
        allow_pickle: also take weights in pickle format (.bin), which can run any code when loaded.
    """

    def __init__(self, *, model: str | None = None, allow_pickle: bool = False) -> None:
        super().__init__("clip_score", model, allow_pickle, otherwise="openai/clip-vit-base-patch16")

    @torch.no_grad()
    def compute(self, run: RunFacts) -> dict[str, Tensor]:
        if self.clip is None:
            return {}
        cosines = (normalize(torch.cat(self.embeddings), dim=1) * self.embedded(run.captions)).sum(dim=1)
        return {self.name: (100 * cosines).clamp(min=0)}
