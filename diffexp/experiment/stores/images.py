"""The images of a run, whatever files they are in."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffexp.errors import InputError
from diffexp.experiment.stores.base import ImageStore, Shape
from diffexp.experiment.stores.png import PngStore
from diffexp.experiment.stores.safetensors import SafetensorsStore
from diffexp.experiment.stores.tar import TarStore

STORES: Mapping[str, type[ImageStore]] = {"png": PngStore, "safetensors": SafetensorsStore, "tar": TarStore}
"""The values of ``samples``."""


class StoredImages(Mapping[int, Tensor]):
    """Images by index, each (C, H, W) in [0, 1], read from disk when it is asked for.

    Args:
        stores: the store of each image.
    """

    def __init__(self, stores: Mapping[int, ImageStore]) -> None:
        self._stores = stores

    def __len__(self) -> int:
        return len(self._stores)

    def __iter__(self) -> Iterator[int]:
        return iter(self._stores)

    def __contains__(self, index: object) -> bool:
        return index in self._stores

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels([index])[0].float() / 255

    def where(self, keep: Callable[[int], bool]) -> "StoredImages":
        """Those of them whose indices are to be kept."""
        return StoredImages({index: store for index, store in self._stores.items() if keep(index)})

    def read(self, indices: Sequence[int]) -> Tensor:
        """A batch, (len(indices), C, H, W) in [0, 1]."""
        return self.pixels(indices).float() / 255

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """A batch, uint8 (len(indices), C, H, W).

        Raises:
            KeyError: there is no such sample.
            InputError: one is damaged.
        """
        return torch.stack([self._whole(index) for index in indices])

    def _whole(self, index: int) -> Tensor:
        store = self._stores[index]
        try:
            return store.pixels(index)
        except (OSError, ValueError) as error:
            raise InputError(f"sample {index} is damaged ({error}); resume=<run folder> draws it again") from error

    def png(self, index: int) -> bytes:
        """An image as the content of a PNG file."""
        return self._stores[index].png(index)

    def path(self, index: int) -> Path | None:
        """The file of an image alone; None in a shard, and where there is no such image."""
        return self._stores[index].path(index) if index in self._stores else None


def stored_images(folder: Path, within: range | None = None) -> StoredImages:
    """The images in a folder ``samples``, in the order of their indices, whole or damaged.

    Args:
        within: only those of these indices, for which not all files are read.
    """
    found: dict[int, ImageStore] = {}
    for store in (kind(folder, within) for kind in STORES.values()):
        found |= dict.fromkeys(store.indices(), store)
    return StoredImages({index: found[index] for index in sorted(found)})


def intact_images(folder: Path, shape: Shape | None, within: range | None = None) -> StoredImages:
    """The images that are whole and of this shape [C, H, W]; None: of the shape that most of them have.

    Args:
        within: only those of these indices, for which not all files are read.
    """
    stores: dict[int, ImageStore] = {}
    shapes: dict[int, Shape] = {}
    for store in (kind(folder, within) for kind in STORES.values()):
        found = store.shapes()
        shapes |= found
        stores |= dict.fromkeys(found, store)
    if shape is None and shapes:
        ((shape, _),) = Counter(shapes.values()).most_common(1)
    return StoredImages({index: stores[index] for index in sorted(stores) if shapes[index] == shape})
