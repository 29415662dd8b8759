"""Vision checkpoints of transformers as feature networks: DINOv2, ViT, the image side of CLIP and others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffexp.components.checkpoints.download import Fetch, locate
from diffexp.components.checkpoints.layout import SAFE, read_config
from diffexp.components.checkpoints.quiet import quietly
from diffexp.components.metrics.prepared_features import PreparedFeatures, package_needed
from diffexp.errors import InputError

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
SIZE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, where the checkpoint says nothing else."""


class VisionCheckpoint(PreparedFeatures):
    """A vision transformer or network: its pooled output, else the mean over positions, is the feature.

    Of DINOv2 that is the normalised class token, as Stein et al. 2023 compare it ("Exposing flaws of generative model
    evaluation metrics and their unfair treatment of diffusion models").
    """

    def __init__(self, network: Any, size: int, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__(mean, deviation)
        self.network, self.size = network, size
        with torch.no_grad():
            self.num_features = self(torch.zeros(1, 3, size, size)).shape[1]

    def features_of(self, prepared: Tensor) -> Tensor:
        if hasattr(self.network, "get_image_features"):  # models of images and texts
            found = self.network.get_image_features(pixel_values=prepared)
        else:
            found = self.network(pixel_values=prepared)
        if isinstance(found, Tensor):
            return found.float()
        pooled = getattr(found, "pooler_output", None)
        return (found.last_hidden_state.mean(dim=1) if pooled is None else pooled.flatten(1)).float()


def load_vision_checkpoint(given: str, key: str = "features") -> VisionCheckpoint:
    """Load a checkpoint from a folder, or from the hub or its cache.

    Args:
        key: the option's name, for messages.

    Raises:
        InputError: transformers is not installed, or the checkpoint is missing, incomplete or of another kind.
    """
    if find_spec("transformers") is None:
        raise InputError(package_needed(given, "transformers", "pipelines"))
    spec = _VisionFiles(f"{key}={given}")
    folder = locate(given, None, spec, key=key)
    if missing := spec.missing(folder):
        raise InputError(f"{spec.source} is no vision checkpoint of transformers: it lacks {', '.join(missing)}")
    from transformers import AutoModel  # seconds to import

    prepare = read_config(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else {}
    try:
        with quietly():
            network = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        size = _size(prepare, network.config)
        mean, deviation = prepare.get("image_mean") or MEAN, prepare.get("image_std") or DEVIATION
        return VisionCheckpoint(network.float(), size, mean, deviation)
    except Exception as error:  # transformers raises a dozen kinds, for other models and for damaged files
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{spec.source} cannot be used as a vision checkpoint: {first[0]}") from None


@dataclass(frozen=True)
class _VisionFiles:
    """The files of a vision checkpoint; see ``checkpoints.download.locate``."""

    source: str
    marker_files = (CONFIG,)

    def complete(self, folder: Path) -> bool:
        return not self.missing(folder)

    def missing(self, folder: Path) -> list[str]:
        weights = [] if any(_is_weights(file.name) for file in folder.iterdir()) else [f"model.{SAFE}"]
        return [*([] if (folder / CONFIG).is_file() else [CONFIG]), *weights]

    def choose(self, names: Sequence[str], fetch: Fetch) -> list[str]:
        wanted = [name for name in names if name in (CONFIG, PREPROCESSOR) or _is_weights(name)]
        if not any(map(_is_weights, wanted)):
            raise InputError(f"{self.source} has no weights as safetensors")
        return wanted


def _is_weights(name: str) -> bool:
    """Whether a file has weights, or says which of several files has which."""
    return name.startswith("model") and name.removesuffix(".index.json").endswith(f".{SAFE}")


def _size(prepare: dict[str, Any], config: Any) -> int:
    """Side of the images: that of the crop in training, else of the resized image, else of the config."""
    vision = getattr(config, "vision_config", config)
    found = prepare.get("crop_size") or prepare.get("size") or getattr(vision, "image_size", None) or SIZE
    if isinstance(found, dict):
        found = found.get("height") or found.get("shortest_edge") or SIZE
    return int(found[0] if isinstance(found, list | tuple) else found)
