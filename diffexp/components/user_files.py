"""Pictures that are given: what a loop starts from, or a metric compares with."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

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
    channels, height, width = shape
    chosen = _files(key, path, indices)
    whole = {file: _read(key, file).convert("L" if channels == 1 else "RGB") for file in set(chosen)}
    fitted = {file: ImageOps.fit(one, (width, height), Image.Resampling.LANCZOS) for file, one in whole.items()}
    return [fitted[file] for file in chosen]


def pictures_in(folder: Path) -> list[Path]:
    """By name."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)


def _files(key: str, path: str, indices: Sequence[int]) -> list[Path]:
    place = Path(path).expanduser()
    files = pictures_in(place) if place.is_dir() else [place]
    if not files:
        raise InputError(f"{key}={path} is a folder without pictures; give png, jpg or webp files")
    return [files[i % len(files)] for i in indices]


def _read(key: str, file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            whole = ImageOps.exif_transpose(image)
            # 16 bits a pixel, as depth maps have: Pillow would cut off what is above 255.
            return whole.point(lambda value: value / 256).convert("L") if whole.mode.startswith("I") else whole
    except FileNotFoundError:
        raise InputError(f"{key}={file}: no such file") from None
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{key}={file} cannot be read as a picture: {' '.join(str(error).split())}") from None


def read_masks(path: str, image: str, shape: tuple[int, int, int], indices: Sequence[int]) -> list[Image.Image]:
    """Black and white, one a sample, scaled and cropped as its picture is; white is what is to be drawn anew.

    Args:
        path: a file, or a folder whose masks the samples take turns with, by name.
        image: likewise the pictures that they belong to.

    Raises:
        InputError: no such file, none that can be read, or one that does not lie on its picture.
    """
    pairs = dict.fromkeys(zip(_files("loop.mask", path, indices), _files("loop.image", image, indices)))
    for mask, picture in pairs:
        (width, height), (w, h) = _read("loop.mask", mask).size, _read("loop.image", picture).size
        if abs(width * h - w * height) > max(width, height, w, h):  # sizes of scaled pictures are rounded
            raise InputError(f"loop.mask={mask} is {width} x {height}, which does not fit {picture} of {w} x {h}")
    pictures = read_pictures("loop.mask", path, (1, *shape[1:]), indices)
    return [picture.point([255 * (value >= 128) for value in range(256)]) for picture in pictures]
