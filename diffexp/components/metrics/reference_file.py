"""Files with the feature statistics of real images, which ``python -m diffexp.train task=reference`` writes.

Tensors ``mean`` (F,) and ``covariance`` (F, F), float64, of all images, for FID; ``samples`` (M, F) float16, the
features of some of them, for KID, MIND, precision and the like, which need more than moments; ``labels`` (M,) their
classes where they have any. The metadata say which features they are, with the hash of the network's weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from diffexp.components.metrics.feature_set import FeatureSet, ReferenceStatistics
from diffexp.components.metrics.features import load_features
from diffexp.errors import InputError
from diffexp.files import replace_whole

COMMAND = "python -m diffexp.train task=reference images=DIR"
FEATURES, GIVEN, HASH, COUNT, CLASSES = "features", "features_given", "features_sha256", "images", "classes"
"""Keys of the metadata: the name, what it was given as, the hash, the number of images, the names of classes."""


def write_reference(
    path: Path, given: str, features: FeatureSet, statistics: ReferenceStatistics, classes: Sequence[str] = ()
) -> None:
    """Write a file, whole or not at all.

    Args:
        given: the features as they were given, perhaps a folder.
        classes: the names of classes 0, 1, and so on.
    """
    mean, covariance = statistics.moments
    tensors = {"mean": mean.contiguous(), "covariance": covariance.contiguous()}
    tensors |= {"samples": statistics.samples.half().contiguous()}
    if statistics.labels is not None:
        tensors["labels"] = statistics.labels.contiguous()
    metadata = {
        FEATURES: features.name,
        GIVEN: given,
        HASH: weights_sha256(features.network),
        COUNT: str(statistics.num_samples),
        CLASSES: "\n".join(classes),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_whole(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_reference(path: str, features: str | None = None) -> FeatureSet:
    """The features of a file, with its real images.

    Args:
        features: as of ``load_features``; None: as the file says.

    Raises:
        InputError: the file is missing or no such file, or its features are others.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise InputError(f"reference={path}: no such file; make it with '{COMMAND} features={features or 'NAME'}'")
    state = place.stat()
    statistics, metadata = _read(place.resolve(), state.st_mtime_ns, state.st_size)
    found = load_features(features or metadata[GIVEN])
    if found.name != metadata[FEATURES]:
        raise InputError(
            f"reference={path} has the features {metadata[FEATURES]}, not {found.name}; "
            f"make another with '{COMMAND} features={features}'"
        )
    if weights_sha256(found.network) != metadata[HASH]:
        raise InputError(
            f"reference={path} was made with other weights of {found.name} "
            f"({metadata[HASH][:12]}, here {weights_sha256(found.network)[:12]}); make it again with '{COMMAND}'"
        )
    return replace(found, reference=statistics, images=_name(place.stem, found.name))


def _name(stem: str, features: str) -> str:
    """The name of the images: that of their file, without the features, and with _ for what names have not."""
    return re.sub(r"[^\w.-]+", "_", stem.removesuffix(f"_{features}")) or features


@lru_cache(maxsize=4)  # so that the metrics of a run share the tensors
def _read(path: Path, modified: int, size: int) -> tuple[ReferenceStatistics, Mapping[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in [*file.keys()]}
            metadata: dict[str, str] = file.metadata() or {}
        if missing := {FEATURES, GIVEN, HASH} - metadata.keys():
            raise KeyError(*missing)
        moments, samples = (tensors["mean"], tensors["covariance"]), tensors["samples"].float()
        statistics = ReferenceStatistics.of_moments(*moments, int(metadata[COUNT]), samples, tensors.get("labels"))
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError):
        raise InputError(f"reference={path} is no file of real images' statistics; make one with '{COMMAND}'") from None
    return statistics, metadata


@lru_cache(maxsize=8)  # modules are hashed by identity
def weights_sha256(network: Any) -> str:
    """The hash of the values of a network's parameters and buffers, in the order of their names."""
    assert isinstance(network, nn.Module)
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
