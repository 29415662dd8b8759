"""A chart as a picture file of its own, for a README or a paper: SVG with its style and its legend inside."""

from collections.abc import Sequence

from markupsafe import Markup

from diffexp.report.assets import asset
from diffexp.report.charts import Chart, Series, marker_definitions

PICTURE = """\
<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">
<style>
{style}.chart {{ font-family: system-ui, sans-serif; }}
</style>
<rect width="100%" height="100%" fill="var(--card)"/>
{content}
</svg>
"""
LETTER, ROW = 7.8, 24
"""Width of a letter at this size of type, about, and height of a row of the legend, in pixels."""
LEFT = 80
FRONT = Markup('<path class="front" d="M-8 0H8"/>')


def chart_picture(chart: Chart, legend: Sequence[Series]) -> str:
    """An SVG file; light or dark as the reader's system is.

    Args:
        legend: a series for each look, under the name that it has there.
    """
    mark = Markup('<g class="series {}"><use href="#m-{}"/></g>')
    known = [(look.name, mark.format(look.colour, look.marker)) for look in legend]
    if len(chart.front) > 1:
        known.append(("Pareto front", FRONT))
    rows = _rows([name for name, _ in known], chart.width - LEFT)
    entry = Markup('<g transform="translate({:.0f} {})">{}<text class="label" x="12" y="5">{}</text></g>')
    entries = [
        entry.format(x, chart.height + 12 + ROW * row, drawn, name) for (row, x), (name, drawn) in zip(rows, known)
    ]
    return str(
        Markup(PICTURE).format(
            width=chart.width,
            height=chart.height + ROW * (rows[-1][0] + 1) + 6 if rows else chart.height,
            title=chart.title,
            style=asset("chart.css"),
            content=marker_definitions() + chart.content() + Markup("").join(entries),
        )
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
