"""The samples of many cells, small enough to be part of a page."""

import base64
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from diffexp.catalog.discover import discover
from diffexp.components.models.base import Runtime
from diffexp.components.models.truth import true_samples
from diffexp.experiment.folder import RunFolder
from diffexp.experiment.image_text import without_texts
from diffexp.experiment.pictures.points import draw_points, frame_around
from diffexp.experiment.sample_files import SAMPLES_DIR
from diffexp.experiment.stores.images import StoredImages, stored_images
from diffexp.sweeps.results import CellResult

MAX_SAMPLES = 16
BUDGET_BYTES = 12_000_000
"""Size of all embedded images of a page."""
BUDGET_SECONDS = 15.0
SMALL_FILE = 6_000
"""Files up to this size are embedded as they are."""
POINTS_SIDE = 256


@dataclass(frozen=True)
class Thumbnails:
    """Images of the same samples of all cells."""

    samples: tuple[str, ...]
    """Descriptions of the images of a cell."""
    images: tuple[tuple[str | None, ...], ...]
    """For each cell a data URI for each of ``samples``; None if the cell has no such image."""
    files: tuple[str, ...]
    """For each of ``samples`` its PNG, relative to the run's folder; empty if there is none."""
    has_files: tuple[bool, ...]
    """For each cell whether it has ``files``, or its images in shards."""
    folders: tuple[tuple[Path, ...], ...]
    """For each cell the folder of the run that each of ``samples`` is of."""
    side: int
    """Length of an image's longer side in pixels."""
    available: int
    """The most images that a cell has on disk."""


Link = Callable[[Path], str]
"""The URL of an image's file."""


def stored_all(folder: Path) -> StoredImages:
    """The images of a run."""
    return RunFolder(folder).finished_images()


def stored_previews(folder: Path) -> StoredImages:
    """The first images of a run, as many as a page has: found without reading the names of all files."""
    return stored_images(folder / SAMPLES_DIR, range(MAX_SAMPLES))


def make_thumbnails(
    cells: Sequence[CellResult],
    budget: int = BUDGET_BYTES,
    seconds: float = BUDGET_SECONDS,
    link: Link | None = None,
    stored: Callable[[Path], StoredImages] = stored_all,
) -> Thumbnails:
    """Shrink sample 0 of all cells, then sample 1 and so on, at most 16, within ``budget`` bytes and ``seconds``.

    For points there is one image per cell, of all points, on the same axes in all cells.

    Args:
        link: images with a file of their own are not shrunk, but are these URLs.
        stored: the images of the run in a folder.
    """
    several = any(cell.members for cell in cells)
    images = [_images(cell, stored, by_seed=several) for cell in cells]
    if not any(images):
        return _points(cells)
    indices = sorted({key for found in images for key in found}, key=lambda key: (key[0], key[1] or 0))
    side = 192 if len(cells) <= 60 else 128 if len(cells) <= 200 else 96
    rounds: list[list[str | None]] = []
    used, began = 0, time.monotonic()
    for index in indices[:MAX_SAMPLES]:
        made = [_picture(found[index], index[0], side, link) if index in found else None for found in images]
        size = sum(len(uri) for uri in made if uri)
        took = (time.monotonic() - began) / (len(rounds) + 1)
        if rounds and used + size > budget:
            break
        rounds.append(made)
        used += size
        if time.monotonic() - began + took > seconds:
            break
    shown = indices[: len(rounds)]
    sides = (_longer_side(found[shown[0]], shown[0][0]) for found in images if shown[0] in found)
    return Thumbnails(
        samples=tuple(f"sample {index}" + (f", seed {seed}" if several else "") for index, seed in shown),
        images=tuple(zip(*rounds)),
        files=tuple(f"samples/{index:06d}.png" for index, _ in shown),
        has_files=tuple(any(found[key].path(key[0]) for key in shown[:1] if key in found) for found in images),
        folders=tuple(tuple(_folder(cell, seed) for _, seed in shown) for cell in cells),
        side=next(sides, side) if link else max(sides, default=side),
        available=len(indices),
    )


def _images(
    cell: CellResult, stored: Callable[[Path], StoredImages], *, by_seed: bool
) -> dict[tuple[int, Any], StoredImages]:
    """Where the images of a cell are, by index and, where some cells have several seeds, by seed."""
    return {
        (index, run.config.get("seed") if by_seed else None): images
        for run in cell.runs
        for images in (stored(run.folder),)
        for index in images
    }


def _folder(cell: CellResult, seed: Any) -> Path:
    return cell.by_seed.get(seed, cell).folder


def _picture(images: StoredImages, index: int, side: int, link: Link | None) -> str | None:
    file = images.path(index) if link else None
    return link(file) if link and file else _thumbnail(images, index, side)


def _thumbnail(images: StoredImages, index: int, side: int) -> str | None:
    """An image as a data URI: its PNG if small, else as JPEG of at most ``side`` pixels; None if unreadable."""
    try:
        png = without_texts(images.png(index))
        if len(png) <= SMALL_FILE:
            return _uri("png", png)
        with Image.open(io.BytesIO(png)) as image:
            image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
            out = io.BytesIO()
            image.convert("L" if image.mode == "L" else "RGB").save(out, "JPEG", quality=82, optimize=True)
            return _uri("jpeg", out.getvalue())
    except (OSError, ValueError):
        return None


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _longer_side(images: StoredImages, index: int) -> int:
    try:
        with Image.open(io.BytesIO(images.png(index))) as image:
            return max(image.size)
    except (OSError, ValueError):
        return 0


def _points(cells: Sequence[CellResult]) -> Thumbnails:
    clouds = [_cloud(cell) for cell in cells]
    known = [cloud for cloud in clouds if cloud is not None]
    if not known:
        return Thumbnails((), ((),) * len(cells), (), (False,) * len(cells), ((),) * len(cells), 0, 0)
    truth = next((found for cell in cells if (found := _truth(cell, max(map(len, known)))) is not None), None)
    frame = frame_around([*known, *([] if truth is None else [truth])])
    images: list[tuple[str | None, ...]] = []
    for cloud in clouds:
        if cloud is None:
            images.append((None,))
            continue
        sheet = Image.new("RGB", (POINTS_SIDE, POINTS_SIDE), (255, 255, 255))
        draw_points(sheet, (0, 0, POINTS_SIDE), frame, cloud, truth)
        out = io.BytesIO()
        sheet.quantize(32).save(out, "PNG", optimize=True)
        images.append((_uri("png", out.getvalue()),))
    description = "all points" + (" (blue) over true samples (grey)" if truth is not None else "")
    folders = tuple((cell.folder,) for cell in cells)
    return Thumbnails((description,), tuple(images), ("",), (False,) * len(cells), folders, POINTS_SIDE, 1)


def _cloud(cell: CellResult) -> Tensor | None:
    _, points = RunFolder(cell.folder).finished_points()
    return points if len(points) else None


def _truth(cell: CellResult, count: int) -> Tensor | None:
    """True samples, if the model of the cell can generate them."""
    try:
        model: Any = discover().build("model", cell.record["config"]["model"])(Runtime())
        return true_samples(model, count)
    except Exception:  # the cell may be from another version, or its model missing: the page shows no truth
        return None
