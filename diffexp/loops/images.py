"""Pictures that a loop starts from, as a model takes them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from diffexp.errors import InputError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def read_pictures(key: str, path: str, shape: tuple[int, int, int], indices: Sequence[int]) -> list[Image.Image]:
    """One picture a sample, scaled and cropped around its centre to ``shape`` (channels, height, width).

    Args:
        key: names the option in messages.
        path: a file, or a folder whose pictures the samples take turns with, by name.

    Raises:
        InputError: no such file, or none that can be read.
    """
    place = Path(path).expanduser()
    files = sorted(f for f in place.iterdir() if f.suffix.lower() in SUFFIXES) if place.is_dir() else [place]
    if not files:
        raise InputError(f"{key}={path} is a folder without pictures; give png, jpg or webp files")
    chosen = [files[i % len(files)] for i in indices]
    fitted = {file: _read(key, file, shape) for file in set(chosen)}
    return [fitted[file] for file in chosen]


def _read(key: str, file: Path, shape: tuple[int, int, int]) -> Image.Image:
    channels, height, width = shape
    try:
        with Image.open(file) as image:
            turned = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
    except FileNotFoundError:
        raise InputError(f"{key}={file}: no such file") from None
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{key}={file} cannot be read as a picture: {' '.join(str(error).split())}") from None
    return ImageOps.fit(turned, (width, height), Image.Resampling.LANCZOS)


def to_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """[B, channels, height, width] in [0, 1]."""
    return torch.stack([_pixels(picture) for picture in pictures])


def _pixels(picture: Image.Image) -> Tensor:
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return values.view(picture.height, picture.width, -1).permute(2, 0, 1).float() / 255


def read_masks(path: str, shape: tuple[int, int, int], indices: Sequence[int]) -> list[Image.Image]:
    """Black and white, one a sample, in the size of the pictures; white is what is to be drawn anew.

    Raises:
        InputError: no such file, or none that can be read.
    """
    pictures = read_pictures("loop.mask", path, (1, *shape[1:]), indices)
    return [picture.point([255 * (value >= 128) for value in range(256)]) for picture in pictures]
