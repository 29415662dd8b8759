"""All certificates on one page: a sorted table, and a chart of exact error against evaluations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffexp.certify.chart import Axes, Series, draw_charts
from diffexp.certify.outcome import Certificate
from diffexp.certify.page import folder_name
from diffexp.files import replace_whole, write_text

BUDGETS = (10, 20, 50)
"""Evaluations at which the table shows the exact error; it is sorted by the second."""
COLUMNS = (
    "scheduler",
    "verdict",
    "order found",
    "declared",
    *(f"W2 at {budget}" for budget in BUDGETS),
    "NFE/step",
    "µs/step",
    "what fails",
)
LEGEND = (
    "Sorted by exact error at 20 evaluations. `order found` is the fitted slope of the global error with its 95 % "
    "interval, of moments where marked `w`. `W2 at n` is the 2-Wasserstein error, over the data's spread, on Gaussian "
    "data with the spectrum of natural images, with at most n evaluations on Karras's levels; a `*` stands for a class "
    "that has no such levels and was run on its own. `µs/step` is the cost of a compiled step beside the network's, on "
    "one thread for [1, 4, 64, 64]."
)
SAME_LINE = 0.02
"""Relative distance below which lines are drawn as one."""
SEVERAL = 1.3
"""Evaluations per step from which on a method counts as one with several."""
CLASSES = "classes of diffusers with an error of their own"
FAMILIES = ("one evaluation per step", "several evaluations per step", "with noise", CLASSES)


def write_index(certificates: Sequence[Certificate], out: Path) -> Path:
    """Write ``index.md`` with the table of all in their order, and ``exact_error.png``; returns the page."""
    panels, image = error_panels(certificates), ""
    if panels:
        with replace_whole(out / "exact_error.png") as temporary:
            draw_charts(panels, width=600, height=430, columns=2).save(temporary)
        image = "\n![Exact error against evaluations, one panel for every family](exact_error.png)\n"
    header = "| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS)
    lines = ["| " + " | ".join([_link(one), *cells(one)[1:]]) + " |" for one in certificates]
    write_text(out / "index.md", "\n".join(["# Certificates", image, header, *lines, "", LEGEND]) + "\n")
    return out / "index.md"


def in_order(certificates: Sequence[Certificate]) -> list[Certificate]:
    """Sort by exact error at 20 evaluations; certificates without one are last."""

    def key(one: Certificate) -> tuple[bool, float, str]:
        error = error_at(one, BUDGETS[1])
        return error is None, error or 0.0, one.name

    return sorted(certificates, key=key)


def table(certificates: Sequence[Certificate], width: int) -> list[str]:
    """Return the lines of a text table no wider than ``width``."""
    rows = [list(COLUMNS), *(cells(one) for one in certificates)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS) - 1)]
    lines = []
    for row in rows:
        line = "  ".join([*(cell.ljust(size) for cell, size in zip(row, widths)), row[-1]]).rstrip()
        lines.append(line if len(line) <= width else line[: width - 1] + "…")
    return lines


def cells(one: Certificate) -> list[str]:
    """Return one row of the table of all."""
    order, interval = one.number("order", "order"), one.number("order", "interval")
    declared = one.number("order", "declared")
    compiled, nfe = one.number("cost", "compiled_us"), one.number("cost", "nfe_per_step")
    star = "*" if _on_its_own_grid(one) else ""
    errors = [error_at(one, budget) for budget in BUDGETS]
    return [
        one.name,
        "passed" if one.passed else "FAILED",
        "" if order is None else f"{order:.2f} ± {interval:.2f}" + (" w" if _with_noise(one) else ""),
        "" if declared is None else f"{declared:g}",
        *("" if error is None else f"{error:.1e}{star}" for error in errors),
        "" if nfe is None else f"{nfe:.3g}",
        "" if compiled is None else f"{compiled:.0f}",
        "; ".join(f"{name}: {outcome.sentence}" for name, outcome in one.failures.items()),
    ]


def error_at(one: Certificate, nfe: int) -> float | None:
    """Return the exact error on natural images with at most ``nfe`` evaluations; None where it is not known."""
    counts, errors = one.number("exact_error", "nfe"), one.number("exact_error", "w2_natural")
    found = [error for count, error in zip(counts or (), errors or ()) if count <= nfe]
    return found[-1] if found else None


@dataclass(frozen=True)
class _Line:
    """The error of one scheduler, or of several whose error is the same."""

    names: list[str]
    family: str
    nfe: Sequence[int]
    errors: Sequence[float]

    def equals(self, other: "_Line") -> bool:
        """Whether both errors are the same wherever both are known."""
        theirs = dict(zip(other.nfe, other.errors))
        pairs = [(error, theirs[nfe]) for nfe, error in zip(self.nfe, self.errors) if nfe in theirs]
        return len(pairs) > 1 and all(math.isclose(a, b, rel_tol=SAME_LINE) for a, b in pairs)

    def series(self, faint: bool) -> Series:
        return Series("" if faint else ", ".join(self.names), self.nfe, self.errors, faint)


def error_panels(certificates: Sequence[Certificate]) -> list[Axes]:
    """Return a panel for every family of schedulers: its own lines in colour, those of all others in grey."""
    lines: list[_Line] = []
    # Native schedulers first: a class with the line of one is not drawn.
    for one in sorted(certificates, key=lambda one: ("/" in one.name, one.name.count("="), one.name)):
        nfe, errors = one.number("exact_error", "nfe"), one.number("exact_error", "w2_natural")
        if not nfe or one.outcomes["exact_error"].failed:
            continue
        line = _Line([_label(one)], _family(one), nfe, errors)
        same = next((drawn for drawn in lines if line.equals(drawn)), None)
        if same is None:
            lines.append(line)
        elif "/" not in one.name or same.family == CLASSES:
            same.names.append(_label(one))
    panels = []
    for family in FAMILIES:
        own = [line.series(faint=False) for line in lines if line.family == family]
        others = [line.series(faint=True) for line in lines if line.family != family]
        if own:
            panels.append(Axes(family, "evaluations", "2-Wasserstein error / spread of the data", [*others, *own]))
    return panels


def _label(one: Certificate) -> str:
    return one.name.removeprefix("diffusers/") + ("*" if _on_its_own_grid(one) else "")


def _family(one: Certificate) -> str:
    if "/" in one.name:
        return CLASSES
    if _with_noise(one):
        return "with noise"
    several = one.number("exact_error", "nfe")[-1] > SEVERAL * one.number("exact_error", "steps")[-1]
    return "several evaluations per step" if several else "one evaluation per step"


def _with_noise(one: Certificate) -> bool:
    """Whether the scheduler draws noise, so that its order is that of moments."""
    return one.number("order", "kind") == "weak order"


def _on_its_own_grid(one: Certificate) -> bool:
    return one.number("exact_error", "grid") == "its own"


def _link(one: Certificate) -> str:
    return f"[{one.name}]({folder_name(one.name)}/certificate.md)"
