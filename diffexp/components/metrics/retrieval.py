"""Whether an image is recognised as its prompt among many other texts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from diffexp import metric
from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.clip import ClipMetric

if TYPE_CHECKING:
    from diffexp.components.models.base import Model

NAMES = "names.txt"
"""The file in a CLIP model's folder that has the texts, where no other is named."""


@metric(higher_is_better=("retrieval",), ranges={"retrieval": (0, 1)}, needed={"retrieval": 16})
class Retrieval(ClipMetric):
    """``retrieval/<model>``: whether an image's prompt is among the ``nearest`` texts to it, of a long list.

    R-precision as Park et al. 2021 use it for text to image (with CLIP's embeddings): 1 or 0 per sample, whose mean is
    the share recognised, unbiased; larger is better, and it takes 16 samples to be ranked. It does not apply where the
    model takes no prompt or CLIP is not available.

    Args:
        model: a CLIP model of transformers: a folder, or a repository on the hub; null: the one that ships for
            ``model=emoji``.
        names: a text file with one text a line; by default ``names.txt`` in the folder of the model. A prompt that is
            one of them but for something after a comma ("red heart, noto") counts as that one; others are added.
        nearest: how near the prompt must be: 5 for "among the five nearest".
        allow_pickle: also take weights in pickle format (.bin), which can run any code when loaded.
    """

    def __init__(
        self, *, model: str | None = None, names: str | None = None, nearest: int = 5, allow_pickle: bool = False
    ) -> None:
        super().__init__("retrieval", model, allow_pickle)
        self.names = names
        self.nearest = nearest

    def applies(self, model: Model) -> str | None:
        if reason := super().applies(model):
            return reason
        return None if self._file().is_file() else f"metric.retrieval.names={self._file()}: no such file"

    @torch.no_grad()
    def compute(self, run: RunFacts) -> dict[str, Tensor]:
        if self.clip is None:
            return {}
        names = self._file().read_text(encoding="utf-8").splitlines()
        own = [name_in(caption, names) for caption in run.captions]
        texts = list(dict.fromkeys([*names, *own]))
        cosines = normalize(torch.cat(self.embeddings), dim=1) @ self.embedded(texts).T
        return {self.name: recognised(cosines, [texts.index(name) for name in own], self.nearest)}

    def _file(self) -> Path:
        assert self.folder is not None
        return Path(self.names).expanduser() if self.names else self.folder / NAMES


def name_in(caption: str, names: Collection[str]) -> str:
    """The longest of the names that is the caption, or its beginning up to a comma; else the caption itself."""
    parts = caption.split(",")
    beginnings = (",".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((text for text in beginnings if text in names), caption)


def recognised(cosines: Tensor, own: Sequence[int], nearest: int) -> Tensor:
    """Whether text ``own[i]`` is among the nearest to image i: 1 or 0 (N,); ``cosines`` (N, texts)."""
    better = cosines > cosines.gather(1, torch.tensor(own).unsqueeze(1))
    return (better.sum(dim=1) < nearest).float()
