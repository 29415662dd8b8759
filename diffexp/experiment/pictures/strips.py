"""Film strip and animation of a run. Drawn with Pillow, lossless.

Tensors are on the CPU. What is not finite in them is drawn as mid-grey (images) or skipped (points).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from torch import Tensor

from diffexp.components.pixels import from_model_range, to_image
from diffexp.experiment.pictures.grid import TILE
from diffexp.experiment.pictures.points import Frame, draw_points, frame_around
from diffexp.experiment.pictures.text import GREY, INK, PAPER, font, shortened
from diffexp.files import replace_whole
from diffexp.plan.levels import Level

MAX_TILE = 160
"""Largest side, in pixels, at which a sample is shown in a film strip; the smallest is ``TILE``."""
GIF_TILE, MAX_GIF_TILE = 128, 256
MAX_COLUMNS = 20
"""How many snapshots a film strip shows at most."""
MARGIN = 16
HOLD_MS, FRAME_MS = 2500, 350


@dataclass(frozen=True)
class Snapshot:
    """Some samples during a run: the solver's state and the model's prediction from it."""

    step: int
    """Solver steps done, 0..steps."""
    steps: int
    level: Level
    """Noise level of ``x``."""
    x: Tensor
    """x_t, (n, *shape), float32 on the CPU."""
    x0: Tensor
    """Predicted x0, as ``x``; both in the model's range, about [-1, 1] for pixels."""
    sigma: float | None = None
    """The level's sigma in the model's schedule, as ``grid.sigmas`` takes it; None: sigma / alpha."""


def film_strip(
    snapshots: Sequence[Snapshot], *, title: str = "", samples: int = 4, captions: Sequence[str] | None = None
) -> Image.Image:
    """The course of a run: one column per snapshot; for each sample x_t above the predicted x0.

    Of more than 20 snapshots it shows 20, evenly spaced, with the first and the last among them.
    Points share two rows, all of them in each panel (two coordinates), on the same axes throughout.

    Args:
        snapshots: in the order of sampling, at least one.
        title: first line, e.g. model, scheduler and steps.
        samples: how many samples are shown at most.
        captions: one per sample, written to the left of its two rows; points have none.
    """
    snapshots = _thin(snapshots)
    cells = _cells(snapshots, samples, TILE, MAX_TILE)
    count, side = len(cells[0]), cells[0][0][0].size
    gap, pair_gap, label_width = 6, 18, 104
    header = MARGIN + (34 if title else 0)
    top = header + 54
    pair_height = 2 * side[1] + gap
    width = 2 * MARGIN + label_width + len(snapshots) * (side[0] + gap) - gap
    height = top + count * (pair_height + pair_gap) - pair_gap + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((MARGIN, MARGIN), shortened(title, font(18), width - 2 * MARGIN), INK, font(18))
    for column, (snapshot, pairs) in enumerate(zip(snapshots, cells, strict=True)):
        left = MARGIN + label_width + column * (side[0] + gap)
        _draw_header(draw, (left + side[0] / 2, header), snapshot)
        for row, pair in enumerate(pairs):
            for line, cell in enumerate(pair):
                sheet.paste(cell, (left, top + row * (pair_height + pair_gap) + line * (side[1] + gap)))
    right = MARGIN + label_width - 10
    for row in range(count):
        middle = top + row * (pair_height + pair_gap) + side[1] / 2
        _draw_noisy_label(draw, (right, middle), "rm", GREY)
        draw.text((right, middle + side[1] + gap), "predicted x0", GREY, font(13), anchor="rm")
        if captions and snapshots[0].x.dim() > 2 and row < len(captions):
            text = shortened(captions[row], font(15), label_width - 10)
            draw.text((right, middle + (side[1] + gap) / 2), text, INK, font(15), anchor="rm")
    return sheet


def film_gif(
    path: Path, snapshots: Sequence[Snapshot], *, title: str = "", samples: int = 4, comment: str = ""
) -> None:
    """Write the course of a run as an animation: x_t beside the predicted x0, the last frame held longer.

    Args:
        comment: a text in the file that is not shown.
    """
    cells = _cells(snapshots, samples, GIF_TILE, MAX_GIF_TILE)
    frames = [
        _gif_frame(snapshot, pairs, title).quantize(256, dither=Image.Dither.NONE)
        for snapshot, pairs in zip(snapshots, cells, strict=True)
    ]
    durations = [FRAME_MS] * (len(frames) - 1) + [HOLD_MS]
    options: dict[str, Any] = {"comment": comment.encode()} if comment else {}
    with replace_whole(path) as temporary:
        frames[0].save(
            *(temporary, "GIF"),
            **options,
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            loop=0,
            optimize=False,
        )


def _thin(snapshots: Sequence[Snapshot]) -> Sequence[Snapshot]:
    if len(snapshots) <= MAX_COLUMNS:
        return snapshots
    last = len(snapshots) - 1
    return [snapshots[round(column * last / (MAX_COLUMNS - 1))] for column in range(MAX_COLUMNS)]


def _cells(
    snapshots: Sequence[Snapshot], samples: int, smallest: int, largest: int
) -> list[list[tuple[Image.Image, Image.Image]]]:
    """Return for every snapshot the pairs (x_t, predicted x0) as images of one size."""
    if snapshots[0].x.dim() == 2:
        axes = frame_around([s.x for s in snapshots]), frame_around([s.x0 for s in snapshots])
        return [[(point_cell(s.x, axes[0], largest), point_cell(s.x0, axes[1], largest))] for s in snapshots]
    return [
        [
            (image_cell(x, smallest, largest), image_cell(x0, smallest, largest))
            for x, x0 in zip(s.x[:samples], s.x0[:samples], strict=True)
        ]
        for s in snapshots
    ]


def image_cell(sample: Tensor, smallest: int, largest: int) -> Image.Image:
    """One sample in the model's range as an image whose sides are at least ``smallest`` and at most ``largest``."""
    image = to_image(from_model_range(sample)).convert("RGB")
    shorter, longer = min(image.size), max(image.size)
    if shorter < smallest:
        scale = -(-smallest // shorter)
        return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    if longer > largest:
        size = round(image.width * largest / longer), round(image.height * largest / longer)
        return image.resize(size, Image.Resampling.LANCZOS)
    return image


def point_cell(points: Tensor, frame: Frame, side: int) -> Image.Image:
    """Points (N, d) in the part of the plane that ``frame`` shows."""
    cell = Image.new("RGB", (side, side), PAPER)
    draw_points(cell, (0, 0, side), frame, points, None)
    return cell


def _gif_frame(snapshot: Snapshot, pairs: list[tuple[Image.Image, Image.Image]], title: str) -> Image.Image:
    width, height = pairs[0][0].size
    gap, middle = 6, 24
    columns = 1 if len(pairs) == 1 else 2
    rows = -(-len(pairs) // columns)
    panel = columns * (width + gap) - gap
    top = MARGIN + (26 if title else 0) + 46
    size = 2 * MARGIN + 2 * panel + middle, top + rows * (height + gap) - gap + MARGIN
    frame = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(frame)
    if title:
        draw.text((MARGIN, MARGIN - 4), shortened(title, font(15), size[0] - 2 * MARGIN), INK, font(15))
    line = top - 46
    draw.text((MARGIN, line), f"step {snapshot.step}/{snapshot.steps}", INK, font(13))
    draw.text((size[0] - MARGIN, line), f"t={snapshot.level.timestep:.4g}", GREY, font(13), anchor="ra")
    _draw_noisy_label(draw, (MARGIN, top - 12), "lm", INK)
    draw.text((MARGIN + panel + middle, top - 12), "predicted x0", INK, font(13), anchor="lm")
    for index, pair in enumerate(pairs):
        left, above = MARGIN + index % columns * (width + gap), top + index // columns * (height + gap)
        frame.paste(pair[0], (left, above))
        frame.paste(pair[1], (left + panel + middle, above))
    return frame


def _draw_header(draw: ImageDraw.ImageDraw, top: tuple[float, float], snapshot: Snapshot) -> None:
    x, y = top
    draw.text((x, y), f"step {snapshot.step}/{snapshot.steps}", INK, font(13), anchor="ma")
    draw.text((x, y + 17), f"t={snapshot.level.timestep:.4g}", GREY, font(12), anchor="ma")
    sigma = snapshot.level.ratio if snapshot.sigma is None else snapshot.sigma
    draw.text((x, y + 32), f"sigma={sigma:.4g}", GREY, font(12), anchor="ma")


def _draw_noisy_label(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], anchor: str, ink: tuple[int, int, int]
) -> None:
    """x with t as its subscript; Pillow's font has no such glyph."""
    large, small = font(15), font(11)
    width = large.getlength("x") + small.getlength("t")
    left = at[0] - width if anchor == "rm" else at[0]
    draw.text((left, at[1]), "x", ink, large, anchor="lm")
    draw.text((left + large.getlength("x"), at[1] + 5), "t", ink, small, anchor="lm")
