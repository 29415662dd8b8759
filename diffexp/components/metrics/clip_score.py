"""Similarity of images and their prompts in the embedding space of CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffexp import metric
from diffexp.components.checkpoints.download import Fetch, locate
from diffexp.components.checkpoints.layout import PICKLED, SAFE, read_config
from diffexp.components.metrics.base import RunFacts
from diffexp.components.pixels import quantized, to_bytes
from diffexp.errors import InputError

if TYPE_CHECKING:
    from diffexp.components.models.base import Model

BATCH = 64
"""Images or prompts in one call of CLIP."""


@metric(higher_is_better=("clip_score",))
class ClipScore:
    """``clip_score/<model>``: 100 times the cosine between CLIP's embeddings of an image and its prompt, at least 0.

    Hessel et al. 2021 (arXiv:2104.08718), with the weight 100 of torchmetrics' CLIPScore, whose values these are; one
    per sample, larger is better. Only embeddings are stored until the run ends. A prompt that is too long for CLIP is
    cut. It does not apply where the model takes no prompt or CLIP is not available.

    Args:
        model: a CLIP model of transformers: a folder, or a repository on the hub.
        allow_pickle: also take weights in pickle format (.bin), which can run any code when loaded.
    """

    def __init__(self, *, model: str = "openai/clip-vit-base-patch16", allow_pickle: bool = False) -> None:
        self.model = model
        self.allow_pickle = allow_pickle
        self.folder: Path | None = None
        self.device = torch.device("cpu")
        self.clip: Clip | None = None
        self.embeddings: list[Tensor] = []

    def applies(self, model: Model) -> str | None:
        if not hasattr(model, "prompts"):
            return f"model={model.id} takes no prompts"
        if find_spec("transformers") is None:
            return "it needs transformers: pip install diffexp[pipelines]"
        try:
            need = ClipFiles(f"metric.clip_score.model={self.model}", self.allow_pickle)
            self.folder = locate(self.model, None, need, key="metric.clip_score.model")
            if missing := need.missing(self.folder):
                return f"{need.source} lacks {', '.join(missing)}"
        except InputError as error:
            return str(error)
        self.device = model.device
        return None

    @torch.no_grad()
    def update(self, samples: Tensor, images: Tensor) -> None:
        assert self.folder is not None
        self.clip = self.clip or Clip.load(self.folder, self.device)
        self.embeddings += [self.clip.of_images(batch) for batch in quantized(images).split(BATCH)]

    @torch.no_grad()
    def compute(self, run: RunFacts) -> dict[str, Tensor]:
        if self.clip is None:
            return {}
        prompts = list(dict.fromkeys(run.captions))
        parts = [self.clip.of_texts(prompts[i : i + BATCH]) for i in range(0, len(prompts), BATCH)]
        embedded = dict(zip(prompts, torch.cat(parts)))
        texts = torch.stack([embedded[caption] for caption in run.captions])
        cosines = torch.nn.functional.cosine_similarity(torch.cat(self.embeddings), texts)
        return {f"clip_score/{Path(self.model).name}": (100 * cosines).clamp(min=0)}


@dataclass(frozen=True)
class Clip:
    """A CLIP model with its image processor and tokenizer."""

    network: Any
    """A ``transformers.CLIPModel``."""
    prepare: Any
    """The image processor."""
    tokenizer: Any

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Clip:
        """Load from a folder that has every file."""
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer  # seconds to import

        from diffexp.components.checkpoints.quiet import quietly

        with quietly():
            safe = any(file.suffix == f".{SAFE}" for file in folder.iterdir())
            network: Any = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=safe)
            prepare = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        return cls(network.eval().requires_grad_(False).to(device), prepare, tokenizer)

    def of_images(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] as embeddings [B, F], float32 on the CPU."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        prepared = self.prepare(images=list(to_bytes(images)), return_tensors="pt")
        return _tensor(self.network.get_image_features(prepared["pixel_values"].to(self.network.device)))

    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts as embeddings [len(texts), F], float32 on the CPU."""
        longest = self.network.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        tokens = tokens.to(self.network.device)
        return _tensor(self.network.get_text_features(tokens["input_ids"], tokens["attention_mask"]))


def _tensor(features: Any) -> Tensor:
    """transformers 5 wraps what used to be the tensor itself."""
    found = features if isinstance(features, Tensor) else features.pooler_output
    return found.float().cpu()


@dataclass(frozen=True)
class ClipFiles:
    """The files of a CLIP model; see ``diffexp.components.checkpoints.download.locate``."""

    source: str
    allow_pickle: bool
    marker_files = ("config.json",)

    def complete(self, folder: Path) -> bool:
        return not self.missing(folder)

    def missing(self, folder: Path) -> list[str]:
        """Names of the files that a folder lacks."""
        names = [file.name for file in folder.iterdir()]
        return [name for name in self.choose(names, lambda _: folder) if name not in names]

    def choose(self, names: Sequence[str], fetch: Fetch) -> list[str]:
        kind = read_config(fetch(["config.json"]) / "config.json").get("model_type")
        if kind != "clip":
            raise InputError(f"{self.source} is a {kind}, not a CLIP model")
        tokens = ["tokenizer.json"] if "tokenizer.json" in names else ["vocab.json", "merges.txt"]
        extra = [name for name in ("tokenizer_config.json", "special_tokens_map.json") if name in names]
        return ["config.json", "preprocessor_config.json", self._weights(names), *tokens, *extra]

    def _weights(self, names: Sequence[str]) -> str:
        safe, pickled = f"model.{SAFE}", f"pytorch_model.{PICKLED}"
        if safe in names or pickled not in names:
            return safe
        if not self.allow_pickle:
            raise InputError(
                f"{self.source} has its weights in pickle format only, which can run any code when loaded; "
                "if you trust it: metric.clip_score.allow_pickle=true"
            )
        return pickled
