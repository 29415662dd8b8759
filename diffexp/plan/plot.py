"""A plan as a drawing: its noise levels, coefficients and noise over the evaluations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from markupsafe import Markup

from diffexp.drawing import Drawing
from diffexp.drawing.labels import spread
from diffexp.drawing.ticks import log_ticks, ticks
from diffexp.plan.row import Row
from diffexp.text import quantity

WIDTH, PANEL, GAP = 720, 170, 44
LEFT, RIGHT, TOP, BOTTOM = 74, 96, 62, 46
"""Pixels around the panels; labels of the lines are to the right."""
LABEL_HEIGHT = 15
MAX_TICKS = 12
COLOURS = 8
LINEAR_TO = 4.0
"""Levels above this are drawn on a logarithmic axis."""
MARKS_TO = 60
"""Up to so many evaluations have a mark each."""

Line = Sequence[float | None]
"""A value for each evaluation; None where there is none."""


@dataclass(frozen=True)
class Panel:
    """One of the charts above each other."""

    title: str
    lines: Mapping[str, Line]
    log: bool = False

    def scale(self, top: float) -> tuple[list[float], "Scale"]:
        """Round numbers for the axis, and the map from values to pixels."""
        values = [v for line in self.lines.values() for v in line if v is not None and (v > 0 or not self.log)]
        low, high = min(values), max(values)
        if self.log:
            low, high = low / 1.2, high * 1.2
            return log_ticks(low, high), Scale(math.log(low), math.log(high), top, log=True)
        low, high = min(low, 0.0), max(high, 0.0)
        margin = 0.06 * (high - low) or 1.0
        low, high = low - margin * (low < 0), high + margin * (high > 0 or low == 0)
        return ticks(low, high, 4), Scale(low, high, top)

    def draw(self, top: float, across: Sequence[float]) -> Markup:
        """The markup of the panel.

        Args:
            top: its upper edge, in pixels.
            across: the place of every evaluation.
        """
        marked, y = self.scale(top)
        parts = [Markup('<text class="label" x="{}" y="{:.1f}">{}</text>').format(LEFT, top - 10, self.title)]
        for value in marked:
            parts.append(Markup('<path class="line" d="M{} {:.1f}H{}"/>').format(LEFT, y(value), WIDTH - RIGHT))
            parts.append(
                Markup('<text x="{}" y="{:.1f}" text-anchor="end" dy=".35em">{:.4g}</text>').format(
                    LEFT - 6, y(value), value
                )
            )
        ends = []
        for number, (name, line) in enumerate(self.lines.items()):
            known = [(x, y(v)) for x, v in zip(across, line) if v is not None and (v > 0 or not self.log)]
            if not known:
                continue
            course = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in known)
            mark = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.6" fill="currentColor"/>')
            marks = [mark.format(*place) for place in known] if len(across) <= MARKS_TO else []
            colour = f"c{number % COLOURS}"
            parts.append(
                Markup('<g class="series {}"><path class="join" d="{}"/>{}</g>').format(
                    colour, course, Markup("").join(marks)
                )
            )
            ends.append((name, colour, known[-1]))
        heights = spread([end[1] for _, _, end in ends], LABEL_HEIGHT, top, top + PANEL)
        for (name, colour, (x, end)), height in zip(ends, heights):
            place = WIDTH - RIGHT + 22
            parts.append(
                Markup(
                    '<g class="series {}"><path class="bars" d="M{:.1f} {:.1f}L{} {:.1f}"/>'
                    '<text x="{}" y="{:.1f}" dy=".35em" style="fill: currentColor">{}</text></g>'
                ).format(colour, x + 4, end, place - 4, height, place, height, name)
            )
        return Markup("").join(parts)


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels of a panel."""

    low: float
    high: float
    top: float
    log: bool = False

    def __call__(self, value: float) -> float:
        place = math.log(value) if self.log else value
        return self.top + PANEL * (self.high - place) / (self.high - self.low)


def plot(name: str, rows: Sequence[Row]) -> Drawing:
    """Draw a plan: see ``Plan.plot``."""
    shown, count = panels(rows), len(rows)
    width = WIDTH - LEFT - RIGHT
    across = [LEFT + width * (k + 0.5) / count for k in range(count)]
    height = TOP + len(shown) * (PANEL + GAP) - GAP + BOTTOM
    title = f"{name}: {quantity(count, 'evaluation')}"
    bottom = height - BOTTOM
    parts = [Markup('<text class="label heading" x="{}" y="24">{}</text>').format(LEFT, title)]
    parts += [panel.draw(TOP + number * (PANEL + GAP), across) for number, panel in enumerate(shown)]
    every = -(-count // MAX_TICKS)
    number = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>')
    for k in range(0, count, every):
        parts.append(number.format(across[k], bottom + 17, k))
    parts.append(
        Markup('<text class="label" x="{:.1f}" y="{:.1f}" text-anchor="middle">evaluation</text>').format(
            LEFT + width / 2, bottom + 36
        )
    )
    text = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">\n'
        "<style>\n{}.chart {{ font-family: system-ui, sans-serif; }}\n</style>\n"
        '<rect width="100%" height="100%" fill="var(--card)"/>\n{}\n</svg>\n'
    ).format(WIDTH, height, title, Markup(_style()), Markup("\n").join(parts))
    return Drawing(str(text), title)


def panels(rows: Sequence[Row]) -> list[Panel]:
    """What is drawn: levels, coefficients, and the noise where there is any."""
    levels = {"alpha": [row.level.alpha for row in rows], "noise_std": [row.level.sigma for row in rows]}
    times = [row.level.timestep for row in rows]
    span = f"t from {times[0]:.4g} to {times[-1]:.4g}"
    highest = max(max(line) for line in levels.values())
    found = [Panel(f"Levels ({span})", levels, log=highest > LINEAR_TO)]
    coefficients: dict[str, list[float | None]] = {}
    for j in range(max(row.depth for row in rows) + 1):
        lag = f"[k-{j}]" if j else "[k]"
        coefficients[f"x{lag}"] = [row.x[j] if j < len(row.x) else None for row in rows]
        coefficients[f"m{lag}"] = [row.m[j] if j < len(row.m) else None for row in rows]
        for i in range(max(len(row.clamps) for row in rows)):
            parts = [row.d[j] if j < len(row.d) else () for row in rows]
            coefficients[f"d{i}{lag}"] = [past[i] if i < len(past) else None for past in parts]
    used = {name: line for name, line in coefficients.items() if any(line)}
    clipped = " and clipped estimates d" if any(name.startswith("d") for name in used) else ""
    found.append(Panel(f"Coefficients of samples x, model outputs m{clipped}", used or coefficients))
    if any(row.z for row in rows):
        noise = [math.hypot(*row.z) for row in rows]
        found.append(Panel("Standard deviation of the fresh noise", {"noise": noise}))
    return found


def _style() -> str:
    return (files("diffexp.drawing") / "chart.css").read_text(encoding="utf-8")
