"""CLIP models of transformers, and the metrics that compare images with texts through one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from diffexp.components.checkpoints.download import Fetch, locate
from diffexp.components.checkpoints.layout import PICKLED, SAFE, read_config
from diffexp.components.metrics.feature_set import WEIGHTS
from diffexp.components.pixels import quantized, to_bytes
from diffexp.errors import InputError

if TYPE_CHECKING:
    from diffexp.components.models.base import Model

BATCH = 64
"""Images or prompts in one call of CLIP."""
SHIPPED = {"emoji": WEIGHTS / "emoji"}
"""The CLIP model for the images of a domain (``feature_domain`` of models): a folder, known by its name as well."""


class ClipMetric:
    """A metric that collects CLIP's embeddings of its run's samples; only those are stored until the run ends.

    It does not apply where the model takes no prompt or CLIP is not available.

    Args:
        name: of the metric.
        model: a folder, a repository on the hub, or the name of a CLIP model that ships; None: the one that ships for
            the images of the run's model, and ``otherwise`` where there is none.
        allow_pickle: also take weights in pickle format.
        otherwise: a repository on the hub.
    """

    def __init__(self, name: str, model: str | None, allow_pickle: bool, otherwise: str | None = None) -> None:
        self.option = f"metric.{name}.model"
        self.allow_pickle = allow_pickle
        self._kind = name
        self._given = model
        self._otherwise = otherwise
        self._model_name = ""
        self.folder: Path | None = None
        self.device = torch.device("cpu")
        self.clip: Clip | None = None
        self.embeddings: list[Tensor] = []

    @property
    def name(self) -> str:
        """The name of the value, once ``applies`` has found the model: ``clip_score/clip-vit-base-patch16``."""
        return f"{self._kind}/{self._model_name}"

    def applies(self, model: Model) -> str | None:
        if not hasattr(model, "prompts"):
            return f"model={model.id} takes no prompts"
        if find_spec("transformers") is None:
            return "it needs transformers: pip install diffexp[pipelines]"
        chosen = self._given or SHIPPED.get(getattr(model, "feature_domain", None) or "", self._otherwise)
        if chosen is None:
            return f"no CLIP model is known for the images of {model.id}; give {self.option}=..."
        chosen = str(SHIPPED.get(str(chosen), chosen))
        self._model_name = Path(chosen).name
        try:
            need = ClipFiles(f"{self.option}={chosen}", self.allow_pickle)
            self.folder = locate(chosen, None, need, key=self.option)
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

    def embedded(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (len(texts), F) of length 1; equal texts are embedded once."""
        assert self.clip is not None
        once = list(dict.fromkeys(texts))
        parts = [self.clip.of_texts(once[i : i + BATCH]) for i in range(0, len(once), BATCH)]
        place = {text: i for i, text in enumerate(once)}
        return normalize(torch.cat(parts)[[place[text] for text in texts]], dim=1)


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
