"""What every kind of files for the images of a run can do."""

import io
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from PIL import Image
from torch import Tensor

from diffexp.components.pixels import image_to_pixels, pixels_to_image

Shape = tuple[int, ...]
CHANNELS = {"L": 1, "RGB": 3}
"""By mode of a PNG."""


class Pngs(Protocol):
    """Whole images by index, wherever they lie."""

    def png(self, index: int) -> bytes: ...

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """uint8 [len(indices), C, H, W]."""
        ...


class ImageStore(Protocol):
    """The images of a run in one kind of files, by index of the sample.

    An object caches what it has read of the folder until it writes itself.

    Args:
        folder: ``samples`` of the run, which need not exist.
        within: the only indices that are read; not all files are then opened.
    """

    patterns: ClassVar[tuple[str, ...]]
    """Of the names of its files."""

    def __init__(self, folder: Path, within: range | None = None) -> None: ...

    def indices(self) -> Collection[int]:
        """The samples that there are, whole or damaged."""
        ...

    def shapes(self) -> Mapping[int, Shape]:
        """The shapes [C, H, W] of the images that are whole: their checksums are right."""
        ...

    def png(self, index: int) -> bytes:
        """The content of the image as a PNG.

        Raises:
            OSError, ValueError: it is damaged.
        """
        ...

    def pixels(self, index: int) -> Tensor:
        """The image as uint8 [C, H, W].

        Raises:
            OSError, ValueError: it is damaged.
        """
        ...

    def path(self, index: int) -> Path | None:
        """The PNG of this image alone; None where there is no such file."""
        ...

    def write(self, indices: Sequence[int], pixels: Tensor) -> None:
        """Write a batch of images, uint8 [B, 1 or 3, H, W], each file whole or not at all."""
        ...

    def copy(self, indices: Sequence[int], images: Pngs) -> None:
        """Write images that are on disk elsewhere, perhaps in files of another kind."""
        ...

    def join(self) -> None:
        """Bring the files of a run that is done into their final form."""
        ...


def encode(pixels: Tensor) -> bytes:
    """A lossless PNG of uint8 [1 or 3, H, W]."""
    content = io.BytesIO()
    pixels_to_image(pixels).save(content, "PNG", compress_level=1)
    return content.getvalue()


def decode(png: bytes) -> Tensor:
    """The pixels of a PNG, uint8 [C, H, W].

    Raises:
        OSError, ValueError: it is damaged, or none.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            return image_to_pixels(image)
    except SyntaxError as error:  # Pillow raises it for broken chunks
        raise ValueError(str(error)) from error


def shape_of_png(file: Path | io.BytesIO) -> Shape | None:
    """The shape [C, H, W] of a PNG whose checksums are right; None for one that is torn, empty or no PNG."""
    try:
        with Image.open(file, formats=["PNG"]) as image:
            shape = (CHANNELS[image.mode], image.height, image.width)
            image.verify()
    except Exception:  # Pillow raises a dozen kinds, SyntaxError among them
        return None
    return shape


def files_within(files: Mapping[int, Path], within: range | None) -> list[Path]:
    """The files, each under the index of its first sample, that may hold samples ``within``; in the order of these."""
    firsts = sorted(files)
    if within is not None:
        start = max(0, bisect_right(firsts, within.start) - 1)  # one that begins before them may reach into them
        firsts = firsts[start : bisect_left(firsts, within.stop)]
    return [files[first] for first in firsts]


def in_turn(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Consecutive parts of at most ``size``."""
    return (indices[start : start + size] for start in range(0, len(indices), size))
