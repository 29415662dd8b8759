"""The pictures of a run: sample grid, film strip, animation, scatter plot. Drawn with Pillow, lossless.

Tensors are on the CPU. What is not finite in them is drawn as mid-grey (images) or left out (points).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffexp.components.pixels import to_image
from diffexp.experiment.pictures.points import Frame, draw_points, frame_around, in_plane, plot_points
from diffexp.files import replace_whole
from diffexp.plan.levels import Level

INK, GREY, PAPER = (34, 34, 34), (118, 118, 118), (255, 255, 255)
TILE, MAX_TILE = 96, 160
"""Smallest and largest side, in pixels, at which a sample is shown in a film strip."""
GIF_TILE, MAX_GIF_TILE = 128, 256
MAX_GRID = 256
"""How many samples a grid shows at most."""
MAX_COLUMNS = 20
"""How many snapshots a film strip shows at most."""
MARGIN = 16
HOLD_MS, FRAME_MS = 2500, 350


@dataclass(frozen=True)
class Snapshot:
    """Some samples on their way: what the solver holds and what the model predicts from it."""

    step: int
    """Solver steps done, 0..steps."""
    steps: int
    level: Level
    """Noise level of ``x``."""
    x: Tensor
    """x_t, (n, *shape), float32 on the CPU."""
    x0: Tensor
    """Predicted x0, as ``x``; both in the model's range, about [-1, 1] for pixels."""


def image_grid(images: Tensor, columns: int | None = None, captions: Sequence[str] | None = None) -> Image.Image:
    """Images side by side, at most the first 256, small ones enlarged by a whole number.

    Args:
        images: (N, C, H, W) in [0, 1], N >= 1.
        columns: how many in a row; by default about as many as there are rows, leaving no gap if that can be.
        captions: one a picture, written below it and cut to its width.
    """
    images = images[:MAX_GRID]
    columns = columns or _columns(len(images))
    rows = -(-len(images) // columns)
    height, width = images.shape[-2:]
    scale = max(1, min(-(-TILE // min(height, width)), 2048 // (columns * width)))
    tile_width, tile_height = scale * width, scale * height
    font = _font(13)
    gap, caption_height = max(2, min(tile_width // 24, 6)), 18 if captions else 0
    step_x, step_y = tile_width + gap, tile_height + gap + caption_height
    sheet = Image.new("RGB", (columns * step_x + gap, rows * step_y + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        left, top = gap + index % columns * step_x, gap + index // columns * step_y
        tile = to_image(image).resize((tile_width, tile_height), Image.Resampling.NEAREST)
        sheet.paste(tile, (left, top))
        if captions:
            text = _cut(captions[index], font, tile_width)
            draw.text((left + tile_width / 2, top + tile_height + 2), text, INK, font, anchor="ma")
    return sheet


def film_strip(
    snapshots: Sequence[Snapshot], *, title: str = "", samples: int = 4, captions: Sequence[str] | None = None
) -> Image.Image:
    """The course of a run: a column a snapshot; for each sample x_t above the predicted x0.

    Of more than 20 snapshots it shows 20, evenly spaced, with the first and the last among them.
    Points share two rows, all of them in each panel (two coordinates), on the same axes throughout.

    Args:
        snapshots: in the order of sampling, at least one.
        title: first line, e.g. model, scheduler and steps.
        samples: how many samples are shown at most.
        captions: one a sample, written at the left of its two rows; points have none.
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
        draw.text((MARGIN, MARGIN), _cut(title, _font(18), width - 2 * MARGIN), INK, _font(18))
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
        draw.text((right, middle + side[1] + gap), "predicted x0", GREY, _font(13), anchor="rm")
        if captions and snapshots[0].x.dim() > 2 and row < len(captions):
            text = _cut(captions[row], _font(15), label_width - 10)
            draw.text((right, middle + (side[1] + gap) / 2), text, INK, _font(15), anchor="rm")
    return sheet


def film_gif(path: Path, snapshots: Sequence[Snapshot], *, title: str = "", samples: int = 4) -> None:
    """Write the course of a run as an animation: x_t beside the predicted x0, the last frame held longer."""
    cells = _cells(snapshots, samples, GIF_TILE, MAX_GIF_TILE)
    frames = [
        _gif_frame(snapshot, pairs, title).quantize(256, dither=Image.Dither.NONE)
        for snapshot, pairs in zip(snapshots, cells, strict=True)
    ]
    durations = [FRAME_MS] * (len(frames) - 1) + [HOLD_MS]
    with replace_whole(path) as temporary:
        frames[0].save(
            temporary, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False
        )


def scatter(points: Tensor, truth: Tensor | None = None, title: str = "") -> Image.Image:
    """Points (N, d) in blue over true draws (M, d) in grey, on axes of equal scale: their first two coordinates.

    Points that are not finite are left out and counted below the title.
    """
    side, left, top = 560, 64, 64
    sheet = Image.new("RGB", (left + side + 24, top + side + 48), PAPER)
    draw = ImageDraw.Draw(sheet)
    frame = frame_around([points] if truth is None else [points, truth])
    plot_points(sheet, (left, top, side), frame, points, truth, _font(13))
    draw.text((left, 14), _cut(title, _font(18), side), INK, _font(18))
    lost = len(points) - len(in_plane(points))
    note = f"{len(points)} samples (blue)" + (", true draws (grey)" if truth is not None else "")
    draw.text((left, 39), note + (f", {lost} of the samples not finite" if lost else ""), GREY, _font(13))
    return sheet


def _thin(snapshots: Sequence[Snapshot]) -> Sequence[Snapshot]:
    if len(snapshots) <= MAX_COLUMNS:
        return snapshots
    last = len(snapshots) - 1
    return [snapshots[round(column * last / (MAX_COLUMNS - 1))] for column in range(MAX_COLUMNS)]


def _cells(
    snapshots: Sequence[Snapshot], samples: int, smallest: int, largest: int
) -> list[list[tuple[Image.Image, Image.Image]]]:
    """For every snapshot the pairs (x_t, predicted x0) as pictures of one size."""
    if snapshots[0].x.dim() == 2:
        axes = frame_around([s.x for s in snapshots]), frame_around([s.x0 for s in snapshots])
        return [[(_point_cell(s.x, axes[0], largest), _point_cell(s.x0, axes[1], largest))] for s in snapshots]
    return [
        [
            (_image_cell(x, smallest, largest), _image_cell(x0, smallest, largest))
            for x, x0 in zip(s.x[:samples], s.x0[:samples], strict=True)
        ]
        for s in snapshots
    ]


def _image_cell(sample: Tensor, smallest: int, largest: int) -> Image.Image:
    # Half the range, so that the noise of x_t, which goes beyond [-1, 1], stays visible.
    image = to_image(sample.float() / 2 + 0.5).convert("RGB")
    shorter, longer = min(image.size), max(image.size)
    if shorter < smallest:
        scale = -(-smallest // shorter)
        return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    if longer > largest:
        size = round(image.width * largest / longer), round(image.height * largest / longer)
        return image.resize(size, Image.Resampling.LANCZOS)
    return image


def _point_cell(points: Tensor, frame: Frame, side: int) -> Image.Image:
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
        draw.text((MARGIN, MARGIN - 4), _cut(title, _font(15), size[0] - 2 * MARGIN), INK, _font(15))
    line = top - 46
    draw.text((MARGIN, line), f"step {snapshot.step}/{snapshot.steps}", INK, _font(13))
    draw.text((size[0] - MARGIN, line), f"t={snapshot.level.timestep:.4g}", GREY, _font(13), anchor="ra")
    _draw_noisy_label(draw, (MARGIN, top - 12), "lm", INK)
    draw.text((MARGIN + panel + middle, top - 12), "predicted x0", INK, _font(13), anchor="lm")
    for index, pair in enumerate(pairs):
        left, above = MARGIN + index % columns * (width + gap), top + index // columns * (height + gap)
        frame.paste(pair[0], (left, above))
        frame.paste(pair[1], (left + panel + middle, above))
    return frame


def _draw_header(draw: ImageDraw.ImageDraw, top: tuple[float, float], snapshot: Snapshot) -> None:
    x, y = top
    draw.text((x, y), f"step {snapshot.step}/{snapshot.steps}", INK, _font(13), anchor="ma")
    draw.text((x, y + 17), f"t={snapshot.level.timestep:.4g}", GREY, _font(12), anchor="ma")
    draw.text((x, y + 32), f"sigma={snapshot.level.sigma:.3f}", GREY, _font(12), anchor="ma")


def _draw_noisy_label(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], anchor: str, ink: tuple[int, int, int]
) -> None:
    """x with t as its subscript; Pillow's font has no such glyph."""
    large, small = _font(15), _font(11)
    width = large.getlength("x") + small.getlength("t")
    left = at[0] - width if anchor == "rm" else at[0]
    draw.text((left, at[1]), "x", ink, large, anchor="lm")
    draw.text((left + large.getlength("x"), at[1] + 5), "t", ink, small, anchor="lm")


def _columns(count: int) -> int:
    """The smallest number from the square root up to about its double that fills every row, else the root."""
    root = math.isqrt(count - 1) + 1
    return next((n for n in range(root, 2 * root) if count % n == 0 and n * n <= 4 * count), root)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # so it is with any size given
    return font


def _cut(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, shortened with an ellipsis where it is wider than ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
