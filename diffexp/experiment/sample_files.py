"""The samples of a run on disk: images, points, and numbers for metrics; damaged files are recognised.

Images are PNGs or in shards, by the key ``samples``; which kind a folder has is read from its files.
"""

import csv
import io
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffexp.components.media import Media
from diffexp.components.pixels import to_pixels
from diffexp.errors import InputError
from diffexp.experiment.image_text import COMMAND, Texts
from diffexp.experiment.media_files import ALWAYS, PATTERNS, write_media
from diffexp.experiment.stores.base import ImageStore, Shape, files_within, no_texts
from diffexp.experiment.stores.images import STORES, StoredImages, intact_images, stored_images
from diffexp.files import replace_whole, write_text

SAMPLES_DIR = "samples"

RAW_SAMPLES_DIR = ".unfinished"
"""Samples of an unfinished run as numbers, where a metric reads more of them than the 8-bit images have."""
SAMPLE_FILES = (
    *(f"{SAMPLES_DIR}/{pattern}" for store in STORES.values() for pattern in store.patterns),
    f"{SAMPLES_DIR}/points*.csv",
    *(f"{SAMPLES_DIR}/[0-9]{pattern}" for pattern in PATTERNS),
    f"{RAW_SAMPLES_DIR}/*.safetensors",
)


class SampleFiles:
    """Reads and writes the samples of a run.

    Args:
        kind: of the files that images are written to, as in ``samples``.
    """

    def __init__(self, folder: Path, kind: str = "png") -> None:
        self.folder = folder
        self.kind = kind
        self.texts: Texts = no_texts
        """What the PNGs that are written say."""

    @property
    def images(self) -> ImageStore:
        """Where images are written."""
        store = STORES[self.kind](self.folder / SAMPLES_DIR)
        store.texts = self.texts
        return store

    def save_samples(self, indices: Sequence[int], samples: Tensor) -> None:
        """Write a batch of finished samples: images [B, C, H, W] in [0, 1], or points [B, d]."""
        if samples.ndim == 2:
            self.save_points(indices, samples)
        else:
            self.images.write(indices, to_pixels(samples))

    def save_media(self, indices: Sequence[int], contents: Tensor, media: Media) -> None:
        """Write a batch of videos [B, F, C, H, W] or sounds [B, channels, T], before the images that stand for them."""
        for index, content in zip(indices, contents):
            write_media(self.folder / SAMPLES_DIR, index, content, media, self.texts(index).get(COMMAND, ""))

    def with_media(self, images: StoredImages, kind: str | None) -> StoredImages:
        """Those of the images whose video or sound is there too; all where the samples are of no such ``kind``."""
        suffix = ALWAYS.get(kind or "")
        folder = self.folder / SAMPLES_DIR
        return images.where(lambda index: suffix is None or (folder / f"{index:06d}{suffix}").is_file())

    def finished_images(self) -> StoredImages:
        """Samples that are on disk as images."""
        return stored_images(self.folder / SAMPLES_DIR)

    def intact_images(self, shape: Shape | None, within: range | None = None) -> StoredImages:
        """The images that are whole and of this shape [C, H, W]; None: of the shape that most of them have.

        Args:
            within: only those of these indices, for which not all files are read.
        """
        return intact_images(self.folder / SAMPLES_DIR, shape, within)

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


def shape_on_disk(images: Tensor) -> list[int] | None:
    """The shape [C, H, W] that images [B, C, H, W] have as PNGs, grey or in colour; None for points [B, d]."""
    if images.ndim == 2:
        return None
    _, channels, height, width = images.shape
    return [3 if channels >= 3 else 1, height, width]


def read_samples(folder: str | Path) -> Mapping[int, Tensor]:
    """The samples of a run by index: images (C, H, W) in [0, 1], read from disk one at a time, or points (d,).

    Whatever files they are in, and also while the run goes on: ``len`` and the order are those of what there is.

    Args:
        folder: of the run, as in ``diffexp.run([...]).folder``.

    Raises:
        InputError: there are no samples; later, one that is read is damaged.

    Example:
        >>> samples = diffexp.read_samples("outputs/2026-11-30/12-00-00_mnist_ddim_50_k3x9")  # doctest: +SKIP
        >>> diffexp.to_image(samples[17]).show()  # doctest: +SKIP
    """
    files = SampleFiles(Path(folder).expanduser())
    if images := files.finished_images():
        return images
    indices, points = files.finished_points()
    if not indices:
        raise InputError(f"{folder} has no samples; give the folder of a run")
    return dict(zip(indices, points))


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
    return files_within(starts, within)


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
