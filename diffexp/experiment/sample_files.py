"""The samples of a run on disk: images, points, and numbers for metrics; damaged files are told from whole ones."""

import csv
import io
import re
import shutil
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffexp.components.pixels import to_image, to_tensor
from diffexp.files import replace_whole, write_text

RAW_SAMPLES_DIR = ".unfinished"
"""Samples of an unfinished run as numbers, where a metric reads more of them than the 8-bit images have."""
SAMPLE_FILES = ("samples/*.png", "samples/points*.csv", f"{RAW_SAMPLES_DIR}/*.safetensors")

Shape = tuple[int, ...]


class SampleFiles:
    """Reads and writes the samples of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sample_path(self, index: int) -> Path:
        return self.folder / "samples" / f"{index:06d}.png"

    def save_samples(self, indices: Sequence[int], samples: Tensor) -> None:
        """Write a batch of finished samples: images [B, C, H, W] in [0, 1], or points [B, d]."""
        if samples.ndim == 2:
            self.save_points(indices, samples)
        else:
            self.save_images(indices, samples)

    def save_images(self, indices: Sequence[int], images: Tensor) -> None:
        """Write one lossless PNG per sample, named by its index; ``images`` [B, C, H, W] in [0, 1]."""
        for index, image in zip(indices, images):
            with replace_whole(self.sample_path(index)) as temporary:
                to_image(image).save(temporary, "PNG", compress_level=1)

    def finished_images(self, within: range | None = None) -> dict[int, Path]:
        """Samples that are on disk as images, by index; of these indices if given."""
        if within is not None:
            return {index: path for index in within if (path := self.sample_path(index)).is_file()}
        paths = sorted((self.folder / "samples").glob("*.png"))
        return {int(path.stem): path for path in paths if path.stem.isdecimal()}

    def intact_images(self, shape: Shape | None, within: range | None = None) -> dict[int, Path]:
        """The images that are whole and of this shape [C, H, W]; None: of the shape that most of them have."""
        paths = self.finished_images(within)
        shapes = {index: found for index, path in paths.items() if (found := shape_of_image(path))}
        if shape is None and shapes:
            ((shape, _),) = Counter(shapes.values()).most_common(1)
        return {index: paths[index] for index, found in shapes.items() if found == shape}

    def store_raw(self, indices: Sequence[int], samples: Tensor) -> None:
        """Store a batch of samples [B, *shape] as numbers, for a run that resumes this one; see ``load_raw``."""
        folder = self.folder / RAW_SAMPLES_DIR
        if folder.is_file():
            folder.unlink()
        with replace_whole(folder / f"{indices[0]:06d}.safetensors") as temporary:
            temporary.write_bytes(save({str(i): x.contiguous() for i, x in zip(indices, samples)}))

    def raw_files(self, shape: Shape, within: range | None = None) -> dict[int, Path]:
        """The whole files of samples of this shape stored as numbers, by index; empty for a finished run."""
        found: dict[int, Path] = {}
        for path in _of_batches(self.folder / RAW_SAMPLES_DIR, "[0-9]*.safetensors", within):
            with suppress(SafetensorError, OSError, ValueError), safe_open(path, "pt") as file:
                names = file.keys()
                found |= {int(name): path for name in names if tuple(file.get_slice(name).get_shape()) == shape}
        return found

    def delete_raw(self) -> None:
        """Delete samples stored as numbers, once the run is done."""
        shutil.rmtree(self.folder / RAW_SAMPLES_DIR, ignore_errors=True)

    def save_points(self, indices: Sequence[int], points: Tensor) -> None:
        """Write a batch of ``points`` [B, d] to a file of its own until ``join_points``."""
        write_text(self.folder / "samples" / f"points-{indices[0]:06d}.csv", points_csv(indices, points))

    def join_points(self) -> None:
        """Merge the batches into ``samples/points.csv``: a line per sample, a column per coordinate."""
        batches = sorted(self.folder.glob("samples/points-*.csv"))
        indices, points = self.finished_points()
        if indices:
            write_text(self.folder / "samples" / "points.csv", points_csv(indices, points))
        for path in batches:  # none that another process has written in the meantime
            path.unlink(missing_ok=True)

    def finished_points(self, within: range | None = None) -> tuple[list[int], Tensor]:
        """Samples that are on disk as whole lines of points: their indices, in order, and the points [N, d]."""
        found: dict[int, list[float]] = {}
        whole = self.folder / "samples" / "points.csv"
        for path in (*_of_batches(whole.parent, "points-*.csv", within), whole):
            with suppress(OSError, ValueError):
                found |= _read_points(path.read_text(encoding="utf-8"))
        sizes = Counter(map(len, found.values())).most_common(1)
        wanted = (index for index in found if within is None or index in within)
        indices = sorted(index for index in wanted if len(found[index]) == sizes[0][0])
        return indices, torch.tensor([found[index] for index in indices])


def shape_on_disk(images: Tensor) -> list[int]:
    """The shape [C, H, W] that images [B, C, H, W] have as PNGs, grey or in colour."""
    _, channels, height, width = images.shape
    return [3 if channels >= 3 else 1, height, width]


def shape_of_image(path: Path) -> Shape | None:
    """The shape [C, H, W] of a PNG whose checksums are right; None for a file that is torn, empty or no PNG."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            channels = {"L": 1, "RGB": 3}[image.mode]
            shape = (channels, image.height, image.width)
            image.verify()
    except Exception:  # Pillow raises a dozen kinds, SyntaxError among them
        return None
    return shape


def read_image(path: Path) -> Tensor:
    """The PNG of a sample as [C, H, W] in [0, 1]."""
    with Image.open(path) as image:
        return to_tensor([image])[0]


def load_raw(raw: Mapping[int, Path], indices: Sequence[int]) -> Tensor:
    """Samples [len(indices), *shape] from their ``raw_files``."""
    found = []
    for index in indices:
        with safe_open(raw[index], "pt") as file:
            found.append(file.get_tensor(str(index)))
    return torch.stack(found)


def _of_batches(folder: Path, pattern: str, within: range | None) -> list[Path]:
    """The files of batches, which are named by their first index; those that may hold the indices ``within``."""
    starts = {int(name[0]): path for path in folder.glob(pattern) if (name := re.search(r"\d+", path.name))}
    numbers = sorted(starts)
    if within is not None:
        first = max(0, bisect_right(numbers, within.start) - 1)  # one that begins before may reach into them
        numbers = numbers[first : bisect_left(numbers, within.stop)]
    return [starts[number] for number in numbers]


def points_csv(indices: Sequence[int], points: Tensor) -> str:
    """One line per sample, its index and coordinates; float32 numbers are the same when read back."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["index", *(f"x{i}" for i in range(points.shape[1]))])
    writer.writerows([index, *row] for index, row in zip(indices, points.tolist()))
    return out.getvalue()


def _read_points(text: str) -> dict[int, list[float]]:
    """The points of a file by index, without lines that are damaged or cut off."""
    header, *lines = text[: text.rfind("\n") + 1].splitlines() or [""]
    found: dict[int, list[float]] = {}
    for line in lines:
        index, *point = line.split(",")
        with suppress(ValueError):
            if index.isdecimal() and point and len(point) == header.count(","):
                found[int(index)] = [float(value) for value in point]
    return found
