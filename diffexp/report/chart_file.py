"""A chart as an SVG file of its own, with its style and the names of its curves, for a README or a paper."""

from collections.abc import Sequence

from markupsafe import Markup

from diffexp.drawing.labels import spread
from diffexp.report.assets import asset
from diffexp.report.charts import Chart, Curve, Scale, marker_definitions

FILE = """\
<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">
<style>
{style}.chart {{ font-family: system-ui, sans-serif; }}
</style>
<rect width="100%" height="100%" rx="8" fill="var(--card)"/>
{content}
</svg>
"""
LETTER, ROW = 9, 24
"""Largest width of a letter, about, and height of a row of the legend, in pixels."""
LEFT = 80
MAX_CURVES, MAX_LETTERS = 12, 18
"""Curves are labelled at their ends if they are few and have short names."""
LABEL_DISTANCE, LABEL_HEIGHT = 32, 17
"""Pixels from the chart to the labels, and from one label to the next."""
FRONT = Markup('<path class="front" d="M-8 0H8"/>')


def chart_svg(chart: Chart, legend: Sequence[Curve]) -> str:
    """The text of an SVG file, light or dark as the reader's system is.

    The curves are labelled at their right ends, or in a legend below if they are too many for that.

    Args:
        legend: a curve for each style, under the style's name; without points.
    """
    names = [curve.name for curve in chart.curves]
    direct = len(names) <= MAX_CURVES and max(map(len, names)) <= MAX_LETTERS
    room = LABEL_DISTANCE + LETTER * max(map(len, names)) + 10 if direct else 14
    x, y = chart.scales(room)
    content = chart.content(x, y)
    mark = Markup('<g class="series {}"><use href="#m-{}"/></g>')
    entries = [(style.name, mark.format(style.colour, style.marker)) for style in legend]
    if direct:
        content, entries = content + _end_labels(chart, x, y), []
    if len(chart.front) > 1:
        entries.append(("Pareto front", FRONT))
    if any(point.low is not None for curve in chart.curves for point in curve.points):
        entries.append(("95 % interval", Markup('<path class="line" style="stroke: var(--soft)" d="M0-7V7"/>')))
    rows = _rows([name for name, _ in entries], chart.width - LEFT)
    row_markup = Markup('<g transform="translate({:.0f} {})">{}<text x="12" y="5">{}</text></g>')
    legend_markup = [
        row_markup.format(left, chart.height + 8 + ROW * row, symbol, name)
        for (row, left), (name, symbol) in zip(rows, entries)
    ]
    return str(
        Markup(FILE).format(
            width=chart.width,
            height=chart.height + ROW * (rows[-1][0] + 1) + 2 if rows else chart.height,
            title=chart.title,
            style=asset("chart.css"),
            content=marker_definitions() + content + Markup("").join(legend_markup),
        )
    )


def _end_labels(chart: Chart, x: Scale, y: Scale) -> Markup:
    """The name of each curve to the right of the chart, joined to its last point."""
    last = [max(curve.points, key=lambda point: point.x) for curve in chart.curves]
    ends = [(x(point.x), y(point.y)) for point in last]
    heights = spread([height for _, height in ends], LABEL_HEIGHT, y.end + 8, y.start)
    label = Markup(
        '<g class="series {}"><path class="bars" style="opacity: .45" d="M{:.1f} {:.1f}L{:.1f} {:.1f}H{:.1f}"/>'
        '<use href="#m-{}" x="{:.1f}" y="{:.1f}"/><text class="label" x="{:.1f}" y="{:.1f}" dy=".35em">{}</text></g>'
    )
    mark = x.end + LABEL_DISTANCE - 10
    return Markup("").join(
        label.format(
            *(c.colour, left + 7, end, x.end + 6, height, mark, c.marker, mark, height, mark + 10, height, c.name)
        )
        for c, (left, end), height in zip(chart.curves, ends, heights)
    )


def _rows(names: Sequence[str], width: float) -> list[tuple[int, float]]:
    """Row and left edge of each entry of the legend, in rows no wider than ``width``."""
    found: list[tuple[int, float]] = []
    row, x = 0, 0.0
    for name in names:
        room = 36 + LETTER * len(name)
        if x and x + room > width:
            row, x = row + 1, 0.0
        found.append((row, LEFT + x))
        x += room
    return found
