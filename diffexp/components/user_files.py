"""Images that the user gives: what a loop starts from, or a metric compares with."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from diffexp.errors import InputError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def read_images(key: str, path: str, shape: tuple[int, int, int], indices: Sequence[int]) -> list[Image.Image]:
    """Read one image per sample, scaled and cropped around its centre to ``shape`` (channels, height, width).

    Args:
        key: name of the option, for messages.
        path: a file, or a folder whose images, sorted by name, are assigned to the samples in turn.

    Raises:
        InputError: no such file, or one that cannot be read.
    """
    channels, height, width = shape
    chosen = _files(key, path, indices)
    whole = {file: read_image(key, file).convert("L" if channels == 1 else "RGB") for file in set(chosen)}
    fitted = {file: ImageOps.fit(one, (width, height), Image.Resampling.LANCZOS) for file, one in whole.items()}
    return [fitted[file] for file in chosen]


def read_masks(path: str, image: str, shape: tuple[int, int, int], indices: Sequence[int]) -> list[Image.Image]:
    """Read one black and white mask per sample, scaled and cropped as its image; white is to be generated.

    Args:
        path: a file, or a folder whose masks, sorted by name, are assigned to the samples in turn.
        image: the images that they belong to, likewise.

    Raises:
        InputError: no such file, one that cannot be read, or a mask with another aspect ratio than its image.
    """
    pairs = dict.fromkeys(zip(_files("loop.mask", path, indices), _files("loop.image", image, indices)))
    for mask, masked in pairs:
        (width, height), (w, h) = read_image("loop.mask", mask).size, read_image("loop.image", masked).size
        if abs(width * h - w * height) > max(width, height, w, h):  # sizes of scaled images are rounded
            raise InputError(f"loop.mask={mask} is {width} x {height}, which does not fit {masked} of {w} x {h}")
    grey = read_images("loop.mask", path, (1, *shape[1:]), indices)
    return [mask.point([255 * (value >= 128) for value in range(256)]) for mask in grey]


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)


def _files(key: str, path: str, indices: Sequence[int]) -> list[Path]:
    place = Path(path).expanduser()
    files = images_in(place) if place.is_dir() else [place]
    if not files:
        raise InputError(f"{key}={path} is a folder without images; give png, jpg or webp files")
    return [files[i % len(files)] for i in indices]


def read_image(key: str, file: Path) -> Image.Image:
    """Read an image as it is, turned as its camera says; of 16 bits a channel the upper 8.

    Args:
        key: name of the option, for messages.

    Raises:
        InputError: no such file, or it cannot be read.
    """
    try:
        with Image.open(file) as image:
            whole = ImageOps.exif_transpose(image)
            # 16 bits per pixel, as depth maps have: Pillow would cut off what is above 255.
            return whole.point(lambda value: value / 256).convert("L") if whole.mode.startswith("I") else whole
    except FileNotFoundError:
        raise InputError(f"{key}={file}: no such file") from None
    except Exception as error:  # Pillow raises a dozen kinds, SyntaxError among them
        raise InputError(f"{key}={file} cannot be read as an image: {' '.join(str(error).split())}") from None
