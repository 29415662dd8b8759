"""Points on axes: the scatter plot of a run, and panels of film strips."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from diffexp.drawing.ticks import ticks
from diffexp.experiment.pictures.text import GREY as NOTE, INK as TITLE, PAPER, font, shortened

INK, LINE, FRAME = (70, 70, 70), (232, 232, 232), (170, 170, 170)
BLUE, GREY = (31, 99, 184), (150, 150, 150)
SMOOTH = 3
"""Points are drawn this many times larger and then reduced, for round edges."""


@dataclass(frozen=True)
class Frame:
    """The visible square of the plane."""

    left: float
    bottom: float
    side: float


def in_plane(points: Tensor) -> Tensor:
    """The first two coordinates of the finite points among (N, d), float64; numbers (d = 1) lie on a line."""
    points = F.pad(points.double(), (0, max(0, 2 - points.shape[1])))[:, :2]
    return points[points.isfinite().all(dim=1)]


def frame_around(clouds: Sequence[Tensor]) -> Frame:
    """The square around all finite points of the clouds (each (N, d)), with a margin of 5 %."""
    points = torch.cat([in_plane(cloud) for cloud in clouds])
    if not len(points):
        return Frame(-1.0, -1.0, 2.0)
    low, high = points.min(dim=0).values, points.max(dim=0).values
    side = 1.1 * (high - low).max().item() or 2.0
    middle = (low + high) / 2
    return Frame(middle[0].item() - side / 2, middle[1].item() - side / 2, side)


def draw_points(
    sheet: Image.Image, box: tuple[int, int, int], frame: Frame, points: Tensor, truth: Tensor | None
) -> None:
    """Draw points over truth in the square ``box`` (left, top, side in pixels), with a thin border."""
    left, top, side = box
    # More points, smaller and fainter.
    crowd = math.sqrt(max(len(points), 1))
    radius = SMOOTH * max(0.9, side * min(0.006, max(0.0025, 0.1 / crowd)))
    opacity = int(255 * min(0.9, max(0.6, 20 / crowd)))
    patch = sheet.crop((left, top, left + side, top + side)).resize((side * SMOOTH, side * SMOOTH))
    for cloud, colour in ((truth, GREY), (points, BLUE)):
        if cloud is None:
            continue
        layer = Image.new("L", patch.size, 0)
        pen = ImageDraw.Draw(layer)
        pixels = (in_plane(cloud) - torch.tensor([frame.left, frame.bottom])) / frame.side * patch.size[0]
        for x, y in pixels.tolist():
            pen.ellipse((x - radius, patch.size[1] - y - radius, x + radius, patch.size[1] - y + radius), fill=opacity)
        patch.paste(colour, mask=layer)
    sheet.paste(patch.resize((side, side), Image.Resampling.BOX), (left, top))
    ImageDraw.Draw(sheet).rectangle((left, top, left + side - 1, top + side - 1), outline=FRAME)


def plot_points(
    sheet: Image.Image,
    box: tuple[int, int, int],
    frame: Frame,
    points: Tensor,
    truth: Tensor | None,
) -> None:
    """``draw_points`` with grid lines, ticks and their numbers at the left and below."""
    left, top, side = box
    draw = ImageDraw.Draw(sheet)
    across = [(left + (x - frame.left) / frame.side * side, x) for x in ticks(frame.left, frame.left + frame.side)]
    upward = [
        (top + side - (y - frame.bottom) / frame.side * side, y) for y in ticks(frame.bottom, frame.bottom + frame.side)
    ]
    for pixel, _ in across:
        draw.line((pixel, top, pixel, top + side), LINE)
    for pixel, _ in upward:
        draw.line((left, pixel, left + side, pixel), LINE)
    draw_points(sheet, box, frame, points, truth)
    for pixel, value in across:
        draw.line((pixel, top + side, pixel, top + side + 4), FRAME)
        draw.text((pixel, top + side + 8), f"{value:g}", INK, font(13), anchor="ma")
    for pixel, value in upward:
        draw.line((left - 5, pixel, left - 1, pixel), FRAME)
        draw.text((left - 9, pixel), f"{value:g}", INK, font(13), anchor="rm")


def scatter(points: Tensor, truth: Tensor | None = None, title: str = "") -> Image.Image:
    """Points (N, d) in blue over true samples (M, d) in grey, on axes of equal scale: their first two coordinates.

    Points that are not finite are skipped and counted below the title.
    """
    side, left, top = 560, 64, 64
    sheet = Image.new("RGB", (left + side + 24, top + side + 48), PAPER)
    draw = ImageDraw.Draw(sheet)
    frame = frame_around([points] if truth is None else [points, truth])
    plot_points(sheet, (left, top, side), frame, points, truth)
    draw.text((left, 14), shortened(title, font(18), side), TITLE, font(18))
    lost = len(points) - len(in_plane(points))
    note = f"{len(points)} samples (blue)" + (", true draws (grey)" if truth is not None else "")
    draw.text((left, 39), note + (f", {lost} of the samples not finite" if lost else ""), NOTE, font(13))
    return sheet
