"""A lossless PNG for each sample, named by its index: ``000123.png``."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from diffexp.experiment.stores.base import Pngs, Shape, decode, encode, shape_of_png
from diffexp.files import replace_whole


class PngStore:
    """See ``ImageStore``."""

    patterns: ClassVar[tuple[str, ...]] = ("*.png",)

    def __init__(self, folder: Path, within: range | None = None) -> None:
        self._folder = folder
        self._within = within

    def indices(self) -> Collection[int]:
        if self._within is not None:
            return [index for index in self._within if self.path(index).is_file()]
        return sorted(int(path.stem) for path in self._folder.glob("*.png") if path.stem.isdecimal())

    def shapes(self) -> Mapping[int, Shape]:
        return {index: shape for index in self.indices() if (shape := shape_of_png(self.path(index)))}

    def png(self, index: int) -> bytes:
        return self.path(index).read_bytes()

    def pixels(self, index: int) -> Tensor:
        return decode(self.png(index))

    def path(self, index: int) -> Path:
        return self._folder / f"{index:06d}.png"

    def write(self, indices: Sequence[int], pixels: Tensor) -> None:
        for index, image in zip(indices, pixels):
            self._write(index, encode(image))

    def copy(self, indices: Sequence[int], images: Pngs) -> None:
        for index in indices:
            self._write(index, images.png(index))

    def join(self) -> None:
        pass

    def _write(self, index: int, png: bytes) -> None:
        with replace_whole(self.path(index)) as temporary:
            temporary.write_bytes(png)
