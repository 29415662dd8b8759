"""Statistics of a folder of images, for metrics that compare samples with them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from diffexp.components.metrics.feature_set import FeatureSet, ReferenceStatistics, extract_features
from diffexp.components.metrics.features import load_features
from diffexp.components.metrics.frechet import squared_frechet_distance
from diffexp.components.metrics.prepared_features import resized, with_channels
from diffexp.components.metrics.reference_file import load_reference, write_reference
from diffexp.components.pixels import to_tensor
from diffexp.components.user_files import images_in, read_image
from diffexp.errors import InputError

log = logging.getLogger(__name__)

DEFAULT = "efficientnet_lite0"
AT_ONCE = 32
"""Images that are in memory."""


@dataclass
class ReferenceRecipe:
    """How a reference is made; see ``conf/train.yaml``."""

    file: str | None
    samples: int
    size: int | Sequence[int] | None
    """Side, or width and height, to which images are cropped and scaled; None: they must all be of one size."""
    seed: int
    against: str | None
    """Another such file: the Frechet distance to it is logged."""


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder, and their classes where they lie in sub-folders."""

    files: Sequence[Path]
    labels: Tensor | None
    """(N,) int64."""
    classes: Sequence[str] = ()
    """Names of the classes 0, 1, and so on."""

    @classmethod
    def find(cls, given: str) -> ImageFolder:
        """The images of a folder, or of its sub-folders, one a class.

        Sub-folders that are all called by numbers are these classes, others are numbered in the order of their names.

        Raises:
            InputError: it is no folder, has no images, or has them beside sub-folders with images.
        """
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise InputError(f"images={given}: no such folder")
        direct = images_in(folder)
        parts = {part: _below(part) for part in sorted(folder.iterdir()) if part.is_dir() and part.name[0] != "."}
        parts = {part: files for part, files in parts.items() if files}
        if not direct and not parts:
            raise InputError(f"images={given} is a folder without images; give png, jpg or webp files")
        if direct and parts:
            raise InputError(
                f"images={given} has images of its own ({direct[0].name}) and in {next(iter(parts)).name}; "
                "give a folder of images, or one of folders, one a class"
            )
        if direct:
            return cls(direct, None)
        names = [part.name for part in parts]
        numbers = [int(name) for name in names] if all(name.isdecimal() for name in names) else [*range(len(names))]
        labels = torch.tensor([number for number, files in zip(numbers, parts.values()) for _ in files])
        return cls([file for files in parts.values() for file in files], labels, names)


def make_reference(given: str, features: str | None, recipe: ReferenceRecipe, folder: Path) -> Path:
    """Write the feature statistics of the images in a folder; returns the path.

    Args:
        given: the folder of images; see ``ImageFolder.find``.
        features: as of ``load_features``; None: ``DEFAULT``.
        folder: of the file, where the recipe names none.

    Raises:
        InputError: unknown features; no images, fewer than two, of different sizes, or one that cannot be read.
    """
    chosen = features or DEFAULT
    known, found = load_features(chosen), ImageFolder.find(given)
    other = load_reference(recipe.against, chosen).reference if recipe.against else None
    if len(found.files) < 2:
        raise InputError(f"images={given} has {len(found.files)} image; a covariance takes two or more")
    size = known.network.num_features
    if len(found.files) <= size:
        log.warning(
            "images=%s has %d images, of which a covariance of %d features is singular: fid is biased upwards; "
            "kid and mind are not",
            *(given, len(found.files), size),
        )
    statistics = _statistics(known, found, recipe)
    path = Path(recipe.file or folder / f"{Path(given).resolve().name}_{known.name}.safetensors").expanduser()
    write_reference(path, chosen, known, statistics, found.classes)
    classes = f" of {len(found.classes)} classes" if found.classes else ""
    log.info("%s: %d images%s, the features of %d", path, len(found.files), classes, len(statistics.samples))
    if other is not None:
        distance = squared_frechet_distance(*statistics.moments, *other.moments)
        log.info("fid/%s to %s: %.6g", known.name, recipe.against, distance)
    return path


def _statistics(known: FeatureSet, found: ImageFolder, recipe: ReferenceRecipe) -> ReferenceStatistics:
    stored = _stored(found, recipe)
    total, outer, samples = torch.zeros(()), torch.zeros(()), list[Tensor]()
    size: tuple[int, int] | None = None
    for start in tqdm(range(0, len(found.files), AT_ONCE), desc="reference", unit="batch", mininterval=10):
        files = found.files[start : start + AT_ONCE]
        images = [_fitted(read_image("images", file).convert("RGB"), recipe.size) for file in files]
        for file, image in zip(files, images):
            size = size or image.size
            if image.size != size:
                raise InputError(
                    f"images={file} is {image.width} x {image.height}, and {found.files[0].name} "
                    f"{size[0]} x {size[1]}; reference.size={min(size)} crops and scales all to one size"
                )
        part = extract_features(known.network, _as_taken(known, to_tensor(images)))
        total, outer = total + part.double().sum(dim=0), outer + part.double().T @ part.double()
        samples.append(part[stored[start : start + AT_ONCE]])
    labels = None if found.labels is None else found.labels[stored]
    return ReferenceStatistics(total, outer, len(found.files), torch.cat(samples), labels)


def _as_taken(known: FeatureSet, images: Tensor) -> Tensor:
    """The images as the network takes them, where it does not scale them itself."""
    if known.network.image_shape is None:
        return images
    channels, *size = known.network.image_shape
    return resized(with_channels(images, channels), (size[0], size[1])).clamp(0, 1)


def _stored(found: ImageFolder, recipe: ReferenceRecipe) -> Tensor:
    """Whether the features of each image are stored, (N,) bool: random ones, about equally many of each class."""
    order = torch.randperm(len(found.files), generator=torch.Generator().manual_seed(recipe.seed))
    if found.labels is not None:
        # The first of each class, then the second of each, and so on.
        ranks = torch.zeros(len(order), dtype=torch.int64)
        for label in found.labels.unique():
            own = found.labels[order] == label
            ranks[own] = torch.arange(int(own.sum()))
        order = order[ranks.argsort(stable=True)]
    chosen = torch.zeros(len(order), dtype=torch.bool)
    chosen[order[: max(2, recipe.samples)]] = True
    return chosen


def _fitted(image: Image.Image, size: int | Sequence[int] | None) -> Image.Image:
    if size is None:
        return image
    width, height = (size, size) if isinstance(size, int) else size
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def _below(folder: Path) -> list[Path]:
    """The images of a folder and of the folders in it."""
    folders = [folder, *(part for part in sorted(folder.rglob("*")) if part.is_dir())]
    return [file for part in folders for file in images_in(part)]
