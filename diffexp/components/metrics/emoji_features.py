"""Features of emoji: the image side of the CLIP model behind ``clip_score/emoji``."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from diffexp.components.metrics.clip import Clip
from diffexp.components.metrics.feature_set import FeatureSet, ReferenceStatistics
from diffexp.errors import InputError

REFERENCE = "reference.safetensors"
"""The file beside the model with ``samples``, the features of the real drawings (N, F) float16."""


class EmojiFeatures(nn.Module):
    """CLIP's embeddings of images, scaled so that their mean square is 1: compared as by CMMD (arXiv:2401.09603)."""

    domain = "emoji"
    image_shape = (3, 64, 64)
    num_classes = None

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip
        self.num_features = int(clip.config.projection_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, 64, 64) in [0, 1] to features (N, F)."""
        embedded = self.clip.get_image_features(images * 2 - 1)
        embedded = embedded if isinstance(embedded, Tensor) else embedded.pooler_output  # of transformers 5
        return normalize(embedded.float(), dim=1) * self.num_features**0.5


@cache
def read_emoji_features(folder: Path) -> FeatureSet:
    """The feature set in a folder that ``python -m diffexp.train task=emoji_features`` wrote.

    Raises:
        InputError: there is none.
    """
    if not (folder / REFERENCE).is_file():
        raise InputError(f"{folder}: no features; make them with 'python -m diffexp.train task=emoji_features'")
    network = EmojiFeatures(Clip.load(folder, torch.device("cpu")).network)
    real = load_file(folder / REFERENCE)["samples"].float()
    return FeatureSet(folder.name, network.eval(), ReferenceStatistics.of(real), {})
