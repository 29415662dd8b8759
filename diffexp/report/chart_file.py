"""A chart as a picture file of its own, for a README or a paper: SVG with its style and the names of lines inside."""

from collections.abc import Sequence

from markupsafe import Markup

from diffexp.report.assets import asset
from diffexp.report.charts import Chart, Scale, Series, marker_definitions

PICTURE = """\
<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">
<style>
{style}.chart {{ font-family: system-ui, sans-serif; }}
</style>
<rect width="100%" height="100%" rx="8" fill="var(--card)"/>
{content}
</svg>
"""
LETTER, ROW = 9, 24
"""Width of a letter at this size of type, at most about that, and height of a row of the legend, in pixels."""
LEFT = 80
MOST_LINES, MOST_LETTERS, BETWEEN, APART = 12, 18, 32, 17
"""Lines are named at their ends if they are few with short names; pixels to the names, and from one to the next."""
FRONT = Markup('<path class="front" d="M-8 0H8"/>')


def chart_picture(chart: Chart, legend: Sequence[Series]) -> str:
    """An SVG file; light or dark as the reader's system is.

    The lines are named at their right ends, or in a legend below if they are too many for that.

    Args:
        legend: a series for each look, under the name that it has there.
    """
    names = [series.name for series in chart.series]
    direct = len(names) <= MOST_LINES and max(map(len, names)) <= MOST_LETTERS
    room = BETWEEN + LETTER * max(map(len, names)) + 10 if direct else 14
    x, y = chart.scales(room)
    content = chart.content(x, y)
    mark = Markup('<g class="series {}"><use href="#m-{}"/></g>')
    known = [(look.name, mark.format(look.colour, look.marker)) for look in legend]
    if direct:
        content, known = content + _end_labels(chart, x, y), []
    if len(chart.front) > 1:
        known.append(("Pareto front", FRONT))
    if any(point.low is not None for series in chart.series for point in series.points):
        known.append(("95 % bootstrap interval", Markup('<path class="line" style="stroke: var(--soft)" d="M0-7V7"/>')))
    rows = _rows([name for name, _ in known], chart.width - LEFT)
    entry = Markup('<g transform="translate({:.0f} {})">{}<text x="12" y="5">{}</text></g>')
    entries = [
        entry.format(left, chart.height + 8 + ROW * row, drawn, name) for (row, left), (name, drawn) in zip(rows, known)
    ]
    return str(
        Markup(PICTURE).format(
            width=chart.width,
            height=chart.height + ROW * (rows[-1][0] + 1) + 2 if rows else chart.height,
            title=chart.title,
            style=asset("chart.css"),
            content=marker_definitions() + content + Markup("").join(entries),
        )
    )


def _end_labels(chart: Chart, x: Scale, y: Scale) -> Markup:
    """The name of each line to the right of the chart, joined to its last point."""
    last = [max(series.points, key=lambda point: point.x) for series in chart.series]
    ends = [(x(point.x) + aside, y(point.y)) for point, aside in zip(last, chart.asides())]
    heights = spread([height for _, height in ends], APART, y.end + 8, y.start)
    label = Markup(
        '<g class="series {}"><path class="bars" style="opacity: .45" d="M{:.1f} {:.1f}L{:.1f} {:.1f}H{:.1f}"/>'
        '<use href="#m-{}" x="{:.1f}" y="{:.1f}"/><text class="label" x="{:.1f}" y="{:.1f}" dy=".35em">{}</text></g>'
    )
    mark = x.end + BETWEEN - 10
    return Markup("").join(
        label.format(
            *(s.colour, left + 7, end, x.end + 6, height, mark, s.marker, mark, height, mark + 10, height, s.name)
        )
        for s, (left, end), height in zip(chart.series, ends, heights)
    )


def spread(wanted: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Places that are at least ``apart`` from each other, in the order of the wanted ones, as near to them as can be.

    Nearest in the sum of squares: those too close to each other form a group around their mean (isotonic regression).
    They lie between ``low`` and ``high`` if there is room for all.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[list[float]] = []  # sum and number of the members' wishes for the first of them
    for rank, index in enumerate(order):
        groups.append([wanted[index] - apart * rank, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, count = groups.pop()
            groups[-1][0] += total
            groups[-1][1] += count
    highest = high - apart * (len(order) - 1)
    starts = [min(max(total / count, low), max(highest, low)) for total, count in groups for _ in range(int(count))]
    found = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        found[index] = starts[rank] + apart * rank
    return found


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
