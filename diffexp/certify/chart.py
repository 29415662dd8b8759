"""Line charts on logarithmic axes, drawn with Pillow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise

from PIL import Image, ImageDraw, ImageFont

from diffexp.drawing.ticks import log_ticks
from diffexp.experiment.pictures.points import FRAME, INK, LINE, SMOOTH

PAPER = (255, 255, 255)
COLOURS = (
    (31, 99, 184),
    (214, 96, 20),
    (44, 138, 60),
    (176, 40, 120),
    (120, 94, 60),
    (0, 140, 150),
    (200, 40, 40),
    (110, 80, 190),
    (150, 150, 0),
    (90, 90, 90),
)
PALE = (212, 212, 212)
Colour = tuple[int, int, int]
TITLE, TEXT = 17, 13
MARGIN, LEFT, BOTTOM, TOP = 14, 62, 46, 62


@dataclass(frozen=True)
class Series:
    """A line; points that are not finite or not greater than 0 are skipped."""

    name: str
    """Label at its right end; a line without a name is for comparison only."""
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False
    """Drawn in grey and thin: a guide for the eye."""

    @property
    def points(self) -> list[tuple[float, float]]:
        return [(x, y) for x, y in zip(self.x, self.y) if x > 0 and math.isfinite(y) and y > 0]


@dataclass(frozen=True)
class Axes:
    """Content of one panel."""

    title: str
    across: str
    upward: str
    series: Sequence[Series]


def draw_charts(panels: Sequence[Axes], *, width: int = 620, height: int = 420, columns: int = 2) -> Image.Image:
    """Draw panels in rows of ``columns``; each has the names of its lines at their right ends."""
    shown = [axes for axes in panels if any(series.points for series in axes.series)]
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (max(1, min(columns, len(shown))) * width, max(1, rows) * height), PAPER)
    for index, axes in enumerate(shown):
        sheet.paste(_panel(axes, width, height), (index % columns * width, index // columns * height))
    return sheet


@dataclass(frozen=True)
class _Place:
    """Map from values to pixels."""

    box: tuple[float, float, float, float]
    low: tuple[float, float]
    high: tuple[float, float]

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self.box
        across = (math.log(x) - math.log(self.low[0])) / (math.log(self.high[0]) - math.log(self.low[0]))
        upward = (math.log(y) - math.log(self.low[1])) / (math.log(self.high[1]) - math.log(self.low[1]))
        return left + across * (right - left), bottom - upward * (bottom - top)


def _panel(axes: Axes, width: int, height: int) -> Image.Image:
    lines = [series for series in axes.series if series.points]
    font, heading = ImageFont.load_default(TEXT), ImageFont.load_default(TITLE)
    names = max(font.getlength(series.name) for series in lines) + 26
    box = (LEFT, TOP, width - MARGIN - names, height - BOTTOM)
    place = _Place(box, *_range(lines))
    # Lines are drawn larger and then reduced, for round edges; text is not.
    large = Image.new("RGB", (width * SMOOTH, height * SMOOTH), PAPER)
    pen = ImageDraw.Draw(large)
    _grid(pen, place)
    coloured = _coloured(lines)
    for series, colour in coloured:
        _line(pen, place, series, colour)
    sheet = large.resize((width, height), Image.Resampling.BOX)
    draw = ImageDraw.Draw(sheet)
    draw.text((LEFT, MARGIN), axes.title, INK, heading)
    _numbers(draw, place, font)
    draw.text(((box[0] + box[2]) / 2, height - MARGIN), axes.across, INK, font, anchor="ms")
    draw.text((LEFT, TOP - 7), axes.upward, INK, font, anchor="ls")
    _labels(draw, place, [(series, colour) for series, colour in coloured if series.name], font)
    return sheet


def _coloured(lines: Sequence[Series]) -> list[tuple[Series, Colour]]:
    """Give each line a colour of its own, faint ones grey, and those without a name a paler grey."""
    own = cycle(COLOURS)
    return [(line, (FRAME if line.name else PALE) if line.faint else next(own)) for line in lines]


def _range(lines: Sequence[Series]) -> tuple[tuple[float, float], tuple[float, float]]:
    xs = [x for series in lines for x, _ in series.points]
    ys = [y for series in lines for _, y in series.points]
    low, high = (min(xs), min(ys) / 1.3), (max(xs), max(ys) * 1.3)
    return (low[0] / 1.05, max(low[1], high[1] * 1e-14)), (high[0] * 1.05, high[1])


def _grid(pen: ImageDraw.ImageDraw, place: _Place) -> None:
    left, top, right, bottom = (edge * SMOOTH for edge in place.box)
    for x in log_ticks(place.low[0], place.high[0]):
        at = place(x, place.low[1])[0] * SMOOTH
        pen.line((at, top, at, bottom), LINE, SMOOTH)
    for y in log_ticks(place.low[1], place.high[1]):
        at = place(place.low[0], y)[1] * SMOOTH
        pen.line((left, at, right, at), LINE, SMOOTH)
    pen.rectangle((left, top, right, bottom), outline=FRAME, width=SMOOTH)


def _numbers(draw: ImageDraw.ImageDraw, place: _Place, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    for x in log_ticks(place.low[0], place.high[0]):
        draw.text((place(x, place.low[1])[0], place.box[3] + 6), f"{x:g}", INK, font, anchor="ma")
    for y in log_ticks(place.low[1], place.high[1]):
        draw.text((place.box[0] - 7, place(place.low[0], y)[1]), f"{y:g}", INK, font, anchor="rm")


def _line(pen: ImageDraw.ImageDraw, place: _Place, series: Series, colour: Colour) -> None:
    points = [tuple(part * SMOOTH for part in place(x, max(y, place.low[1]))) for x, y in series.points]
    thick = SMOOTH if series.faint else 2 * SMOOTH
    for before, after in pairwise(points):
        pen.line((*before, *after), colour, thick)
    if not series.faint:
        for x, y in points:
            pen.ellipse((x - thick, y - thick, x + thick, y + thick), fill=colour)


def _labels(
    draw: ImageDraw.ImageDraw,
    place: _Place,
    lines: Sequence[tuple[Series, Colour]],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write names at the right ends of their lines, moved apart where they would overlap, with a thin line to each."""
    ends = [(place(*series.points[-1]), series, colour) for series, colour in lines]
    ends.sort(key=lambda end: end[0][1])
    apart, top, bottom = TEXT + 1.0, place.box[1], place.box[3]
    heights: list[float] = []
    for (_, y), _, _ in ends:
        heights.append(max(y, heights[-1] + apart if heights else top))
    for k in reversed(range(len(heights))):
        heights[k] = min(heights[k], heights[k + 1] - apart if k + 1 < len(heights) else bottom + MARGIN)
    for ((x, y), series, colour), height in zip(ends, heights):
        draw.line((x + 4, y, place.box[2] + 16, height), LINE)
        draw.text((place.box[2] + 20, height), series.name, INK if series.faint else colour, font, anchor="lm")
