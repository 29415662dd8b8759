"""Charts as SVG: points with intervals over a cost. Colours are those of the page's style sheet, light or dark."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from diffexp.drawing.ticks import log_ticks, ticks

COLOURS, MARKERS = 8, ("circle", "square", "triangle", "diamond", "down", "cross")
"""Number of colours in the style sheet, classes ``c0`` and so on, and the markers that distinguish further curves."""
MAX_COSTS, MIN_TICK_DISTANCE = 16, 36
"""Up to so many different whole costs are themselves the ticks, if so many pixels lie between them."""
TOP, LINE_HEIGHT = 12, 19
"""Pixels above the plot, and for each line of the title."""
LOG_FROM = 8.0
"""An axis is logarithmic if its largest value is so many times its smallest."""


@dataclass(frozen=True)
class Point:
    """One cell in a chart."""

    cell: int
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    few: bool = False
    """Whether the value is of few samples; such points are on no Pareto front."""


@dataclass(frozen=True)
class Curve:
    """Points that are joined in the order of x."""

    name: str
    style: int
    """Determines colour and marker; curves of one style look the same."""
    points: Sequence[Point]

    @property
    def colour(self) -> str:
        return f"c{self.style % COLOURS}"

    @property
    def marker(self) -> str:
        return MARKERS[(self.style // COLOURS) % len(MARKERS)]


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        low, high, value = (self._place(v) for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def _place(self, value: float) -> float:
        return math.log(max(value, 1e-300)) if self.log else value

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high, 6)


@dataclass(frozen=True)
class Chart:
    """Quality over cost."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    front: Sequence[Point] = field(default_factory=tuple)
    """The Pareto front, by x."""
    width: int = 720
    height: int = 430
    note: str = ""
    """What the cells have in common, as a second line of the title: model, number of samples."""

    def svg(self) -> Markup:
        """The chart; each point carries the number of its cell as ``data-cell``."""
        return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            self.width, self.height, self.title, self.content(*self.scales())
        )

    def scales(self, right: float = 14) -> tuple[Scale, Scale]:
        """The scales of both axes; ``right`` pixels beside them stay free."""
        points = [point for curve in self.curves for point in curve.points]
        left, top, bottom = 74, TOP + LINE_HEIGHT * (2 if self.note else 1), 56
        values = [p.y for p in points]
        ends = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
        if log := _wants_log(values):  # the axis shows a part of an interval that reaches to 0
            ends = [max(v, min(values) / 3) for v in ends]
        return _scale([p.x for p in points], left, self.width - right), _scale(ends, self.height - bottom, top, log)

    def content(self, x: Scale, y: Scale) -> Markup:
        """The markup inside ``svg``."""
        curves = [_curve_markup(curve, x, y) for curve in self.curves]
        return Markup("").join([self._heading(x), self._grid(x, y), self._front(x, y), *curves])

    def _heading(self, x: Scale) -> Markup:
        line = Markup('<text class="{}" x="{:.1f}" y="{}">{}</text>')
        texts = [("heading", self.title), *([("note", self.note)] if self.note else [])]
        return Markup("").join(
            line.format(style, x.start, TOP + 4 + LINE_HEIGHT * row, text) for row, (style, text) in enumerate(texts)
        )

    def _grid(self, x: Scale, y: Scale) -> Markup:
        parts = []
        for value in self._costs(x) or x.ticks():
            at = f"{x(value):.1f}"
            parts.append(Markup('<path class="line" d="M{} {:.1f}V{:.1f}"/>').format(at, y.start, y.end))
            parts.append(
                Markup('<text x="{}" y="{:.1f}" text-anchor="middle" dy="1.3em">{}</text>').format(
                    at, y.start, _number_text(value)
                )
            )
        for value in y.ticks():
            at = f"{y(value):.1f}"
            parts.append(Markup('<path class="line" d="M{:.1f} {}H{:.1f}"/>').format(x.start, at, x.end))
            parts.append(
                Markup('<text x="{:.1f}" y="{}" text-anchor="end" dx="-6" dy=".35em">{}</text>').format(
                    x.start, at, _number_text(value)
                )
            )
        middle_x, middle_y = (x.start + x.end) / 2, (y.start + y.end) / 2
        parts.append(
            Markup('<text class="label" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                middle_x, self.height - 8, self.x_label
            )
        )
        parts.append(
            Markup(
                '<text class="label y" transform="translate(15 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>'
            ).format(middle_y, self.y_label)
        )
        return Markup('<g class="axes" aria-hidden="true">{}</g>').format(Markup("").join(parts))

    def _costs(self, x: Scale) -> list[float]:
        """The costs, where they are few whole numbers; of those close to each other the most frequent."""
        counts = Counter(point.x for curve in self.curves for point in curve.points)
        if len(counts) > MAX_COSTS or not all(float(cost).is_integer() for cost in counts):
            return []
        shown: list[float] = []
        for cost in sorted(counts, key=lambda cost: (-counts[cost], cost)):
            if all(abs(x(cost) - x(other)) >= MIN_TICK_DISTANCE for other in shown):
                shown.append(cost)
        return shown

    def _front(self, x: Scale, y: Scale) -> Markup:
        if len(self.front) < 2:
            return Markup("")
        places = [(x(p.x), y(p.y)) for p in self.front]
        path = f"M{places[0][0]:.1f} {places[0][1]:.1f}" + "".join(f"H{a:.1f}V{b:.1f}" for a, b in places[1:])
        return Markup('<path class="front" d="{}"/>').format(path)


def _curve_markup(curve: Curve, x: Scale, y: Scale) -> Markup:
    """A line through the points, a band of the intervals around it, and a bar at each point."""
    points = sorted(curve.points, key=lambda p: p.x)
    places = [(x(p.x), y(p.y)) for p in points]
    line = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    ends = [
        (a, y(max(p.low, y.low)), y(p.high))
        for p, (a, _) in zip(points, places)
        if p.low is not None and p.high is not None
    ]
    bars = "".join(f"M{a:.1f} {low:.1f}V{high:.1f}" for a, low, high in ends)
    edge = [*((a, low) for a, low, _ in ends), *((a, high) for a, _, high in reversed(ends))]
    band = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in edge) + "Z" if len(ends) > 1 else ""
    marks = Markup("").join(
        Markup('<use href="#m-{}" x="{:.1f}" y="{:.1f}" data-cell="{}"/>').format(curve.marker, a, b, p.cell)
        for p, (a, b) in zip(points, places)
    )
    return Markup(
        '<g class="series {}" data-style="{}"><path class="band" d="{}"/><path class="join" d="{}"/>'
        '<path class="bars" d="{}"/>{}</g>'
    ).format(curve.colour, curve.style, band, line, bars, marks)


def marker_definitions() -> Markup:
    """The shapes of all markers, as ``<defs>``."""
    shapes = {
        "circle": '<circle r="5"/>',
        "square": '<rect x="-4.5" y="-4.5" width="9" height="9"/>',
        "triangle": '<path d="M0-6L5.6 4.2H-5.6Z"/>',
        "diamond": '<path d="M0-6.4L5.4 0L0 6.4L-5.4 0Z"/>',
        "down": '<path d="M0 6L5.6-4.2H-5.6Z"/>',
        "cross": '<path d="M-5-2V2H-2V5H2V2H5V-2H2V-5H-2V-2Z"/>',
    }
    parts = "".join(f'<g id="m-{name}">{shape}</g>' for name, shape in shapes.items())
    return Markup(f"<defs>{parts}</defs>")


def _wants_log(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) >= LOG_FROM


def _scale(values: Sequence[float], start: float, end: float, log: bool | None = None) -> Scale:
    log = _wants_log(values) if log is None else log
    low, high = min(values), max(values)
    if log:
        margin = (high / low) ** 0.05 if high > low else 2.0
        return Scale(low / margin, high * margin, start, end, True)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return Scale(0.0 if 0 <= low - margin < 0.25 * high else low - margin, high + margin, start, end, False)


def _number_text(value: float) -> str:
    return escape(f"{value:.6g}".replace("e-0", "e-").replace("e+0", "e"))
