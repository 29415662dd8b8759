"""The samples of many cells, small enough to be part of a page."""

import base64
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffexp.catalog.discover import discover
from diffexp.components.models.base import Runtime
from diffexp.experiment.folder import RunFolder
from diffexp.experiment.pictures.points import draw_points, frame_around
from diffexp.sweeps.results import Cell

MOST_SAMPLES = 16
BUDGET_BYTES = 12_000_000
"""For all pictures of a page, as they are embedded."""
BUDGET_SECONDS = 15.0
SMALL_FILE = 6_000
"""Files up to this size are embedded as they are."""
POINTS_SIDE = 256


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of the same samples of all cells."""

    samples: tuple[str, ...]
    """What the pictures of a cell show, in words, one a picture."""
    pictures: tuple[tuple[str | None, ...], ...]
    """For each cell a data URI for each of ``samples``; None where the cell has no such picture."""
    files: tuple[str, ...]
    """For each of ``samples`` the file that it was made from, relative to the run's folder; empty if there is none."""
    side: int
    """Of a picture, in pixels, its longer one."""
    note: str
    """What was left out; empty if nothing."""


def make_thumbnails(cells: Sequence[Cell], budget: int = BUDGET_BYTES, seconds: float = BUDGET_SECONDS) -> Thumbnails:
    """Sample 0 of all cells, then sample 1 and so on, up to 16, the budget, or the time that this may take.

    Cells of points have one picture, of all their points, on the same axes in all cells.
    """
    images = [RunFolder(cell.folder).finished_images() for cell in cells]
    if not any(images):
        return _points(cells)
    indices = sorted({index for found in images for index in found})
    side = 192 if len(cells) <= 60 else 128 if len(cells) <= 200 else 96
    rounds: list[list[str | None]] = []
    used, began = 0, time.monotonic()
    for index in indices[:MOST_SAMPLES]:
        made = [_thumbnail(found[index], side) if index in found else None for found in images]
        size = sum(len(uri) for uri in made if uri)
        took = (time.monotonic() - began) / (len(rounds) + 1)
        if rounds and used + size > budget:
            break
        rounds.append(made)
        used += size
        if time.monotonic() - began + took > seconds:
            break
    shown = indices[: len(rounds)]
    note = f"{len(shown)} of up to {len(indices)} samples of each cell are shown" if len(shown) < len(indices) else ""
    return Thumbnails(
        samples=tuple(f"sample {index}" for index in shown),
        pictures=tuple(zip(*rounds)),
        files=tuple(f"samples/{index:06d}.png" for index in shown),
        side=max((_longer_side(found[shown[0]]) for found in images if shown[0] in found), default=side),
        note=note,
    )


def _thumbnail(file: Path, side: int) -> str | None:
    """As a data URI, no longer than ``side``; small files as they are, others as JPEG. None if it cannot be read."""
    try:
        if file.stat().st_size <= SMALL_FILE:
            return _uri("png", file.read_bytes())
        with Image.open(file) as image:
            image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
            out = io.BytesIO()
            image.convert("L" if image.mode == "L" else "RGB").save(out, "JPEG", quality=82, optimize=True)
            return _uri("jpeg", out.getvalue())
    except OSError:
        return None


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _longer_side(file: Path) -> int:
    try:
        with Image.open(file) as image:
            return max(image.size)
    except OSError:
        return 0


def _points(cells: Sequence[Cell]) -> Thumbnails:
    clouds = [_cloud(cell) for cell in cells]
    known = [cloud for cloud in clouds if cloud is not None]
    if not known:
        return Thumbnails((), ((),) * len(cells), (), 0, "")
    truth = next((found for cell in cells if (found := _truth(cell, max(map(len, known)))) is not None), None)
    frame = frame_around([*known, *([] if truth is None else [truth])])
    pictures: list[tuple[str | None, ...]] = []
    for cloud in clouds:
        if cloud is None:
            pictures.append((None,))
            continue
        sheet = Image.new("RGB", (POINTS_SIDE, POINTS_SIDE), (255, 255, 255))
        draw_points(sheet, (0, 0, POINTS_SIDE), frame, cloud, truth)
        out = io.BytesIO()
        sheet.quantize(32).save(out, "PNG", optimize=True)
        pictures.append((_uri("png", out.getvalue()),))
    said = "all points" + (" (blue) over true draws (grey)" if truth is not None else "")
    return Thumbnails((said,), tuple(pictures), ("",), POINTS_SIDE, "")


def _cloud(cell: Cell) -> Tensor | None:
    _, points = RunFolder(cell.folder).finished_points()
    return points if len(points) else None


def _truth(cell: Cell, count: int) -> Tensor | None:
    """True draws, where the model of the cell can make them."""
    try:
        model: Any = discover().build("model", cell.record["config"]["model"])(Runtime())
        return model.sample_truth(count, torch.Generator().manual_seed(0)).cpu()
    except Exception:  # the cell may be from another version, its model elsewhere: a comparison goes without
        return None
