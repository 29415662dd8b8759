"""Certificates as files: JSON, a Markdown page and a chart for each, an index and a chart for all."""

from collections.abc import Sequence
from pathlib import Path

from diffexp.certify.chart import Axes, Series, draw_charts
from diffexp.certify.outcome import Certificate, Outcome, Verdict
from diffexp.files import replace_whole, write_json, write_text

MARKS = {Verdict.PASSED: "✓", Verdict.WARNED: "!", Verdict.FAILED: "✗", Verdict.SKIPPED: "–"}
MEANINGS = {
    "deterministic": "the same start and noise give the same output",
    "batch": "a sample does not depend on its batch",
    "inputs": "nothing that it is given is edited",
    "reuse": "a run leaves nothing behind",
    "few_steps": "right with 1, 2 and 3 steps",
    "timesteps": "a list of timesteps is visited as given",
    "told": "the network is told the noise that it sees",
    "middle_start": "right from the middle of its grid",
    "ends": "first and last step finite and right",
    "point": "every step exact where the data is a point",
    "even": "no step is much worse than those around it",
    "order": "order of convergence against the exact solution",
    "strong_order": "order in which single paths converge",
    "exact_error": "2-Wasserstein distance to Gaussian data, in closed form",
    "precision": "float32 and bfloat16 against float64; its own coefficients",
    "cost": "evaluations and time of a step",
    "parity": "the table of its twin in diffusers",
    "same_table": "other schedulers with this table",
}


def folder_name(name: str) -> str:
    """A scheduler's name as the name of a folder."""
    return "".join(letter if letter.isalnum() or letter in "._-=" else "_" for letter in name)


def write_certificate(certificate: Certificate, out: Path) -> Path:
    """Write ``certificate.json``, ``certificate.md`` and ``certificate.png``; returns the folder."""
    folder = out / folder_name(certificate.name)
    write_json(folder / "certificate.json", certificate.to_json())
    panels = [axes for axes in (_order_chart(certificate), _error_chart(certificate)) if axes]
    if panels:
        with replace_whole(folder / "certificate.png") as temporary:
            draw_charts(panels).save(temporary)
    write_text(folder / "certificate.md", _page(certificate, bool(panels)))
    return folder


def write_index(certificates: Sequence[Certificate], out: Path) -> Path:
    """Write ``index.md`` with the table of all, and ``exact_error.png``; returns the page."""
    series = [
        Series(one.name, one.number("exact_error", "nfe"), one.number("exact_error", "w2_natural"))
        for one in certificates
        if one.number("exact_error", "nfe") and not one.outcomes["exact_error"].failed and not _drawn_as_another(one)
    ]
    picture = ""
    if series:
        axes = Axes("exact error against evaluations", "evaluations", "W2 / spread of the data, 1/f^2 images", series)
        with replace_whole(out / "exact_error.png") as temporary:
            draw_charts([axes], width=1000, height=max(560, 15 * len(series) + 130)).save(temporary)
        picture = "\n![Exact error against evaluations](exact_error.png)\n"
    header = "| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS)
    lines = ["| " + " | ".join([_link(one), *cells(one)[1:]]) + " |" for one in certificates]
    write_text(out / "index.md", "\n".join(["# Certificates", picture, header, *lines, "", _legend()]) + "\n")
    return out / "index.md"


COLUMNS = ("scheduler", "verdict", "order", "declared", "W2 at 20", "NFE/step", "µs/step", "what fails")


def cells(one: Certificate) -> list[str]:
    """One line of the table of all."""
    order, interval = one.number("order", "order"), one.number("order", "interval")
    declared = one.number("order", "declared")
    error, compiled, nfe = error_at(one, 20), one.number("cost", "compiled_us"), one.number("cost", "nfe_per_step")
    return [
        one.name,
        "passed" if one.passed else "FAILED",
        "" if order is None else f"{order:.2f} ± {interval:.2f}" + (" w" if weak(one) else ""),
        "" if declared is None else f"{declared:g}",
        "" if error is None else f"{error:.1e}",
        "" if nfe is None else f"{nfe:.3g}",
        "" if compiled is None else f"{compiled:.0f}",
        "; ".join(f"{name}: {outcome.sentence}" for name, outcome in one.failures.items()),
    ]


def weak(one: Certificate) -> bool:
    """Whether its order is that of moments."""
    return one.number("order", "kind") == "weak order"


def error_at(one: Certificate, nfe: int) -> float | None:
    """The exact error on natural images with at most so many evaluations; None where it is not known."""
    counts, errors = one.number("exact_error", "nfe"), one.number("exact_error", "w2_natural")
    found = [error for count, error in zip(counts or (), errors or ()) if count <= nfe]
    return found[-1] if found else None


def _drawn_as_another(one: Certificate) -> bool:
    """Whether it is a class with the table of a native scheduler, whose line would lie on the other."""
    same = one.number("parity", "difference")
    return "/" in one.name and same is not None and same <= one.number("parity", "tolerance")


def _link(one: Certificate) -> str:
    return f"[{one.name}]({folder_name(one.name)}/certificate.md)"


def _legend() -> str:
    return (
        "Sorted by exact error at 20 evaluations. `order` is the fitted slope of the global error with its 95 % "
        "interval, of moments where marked `w`. `W2 at 20` is the 2-Wasserstein error, over the data's spread, on "
        "Gaussian data with the spectrum of natural images, with at most 20 evaluations."
    )


def _page(certificate: Certificate, charts: bool) -> str:
    failures = certificate.failures
    verdict = "**passed**" if not failures else f"**failed**: {', '.join(failures)}"
    lines = [f"# {certificate.name}", "", f"Certificate {verdict}.", ""]
    if charts:
        lines += ["![Order of convergence, and exact error](certificate.png)", ""]
    lines += ["| check | | found |", "|---|---|---|"]
    lines += [_row(name, outcome) for name, outcome in certificate.outcomes.items()]
    made = ", ".join(f"{name} {version}" for name, version in certificate.versions.items())
    lines += ["", f"{made}; {certificate.seconds:.1f} s. What each check asks:", ""]
    lines += [f"- `{name}`: {meaning}" for name, meaning in MEANINGS.items()]
    return "\n".join(lines) + "\n"


def _row(name: str, outcome: Outcome) -> str:
    return f"| {name} | {MARKS[outcome.verdict]} | {outcome.sentence.replace('|', '/')} |"


def _order_chart(certificate: Certificate) -> Axes | None:
    counts, errors = certificate.number("order", "counts"), certificate.number("order", "errors")
    if not counts:
        return None
    kind = certificate.number("order", "kind")
    shipped = certificate.number("order", "errors_as_shipped")
    series = [Series("in float64" if shipped else "measured", counts, errors)]
    if shipped:
        series.append(Series("as shipped", counts, shipped))
    for slope in (1, 2, 3, 4):
        series.append(
            Series(f"order {slope}", counts, [errors[0] * (counts[0] / n) ** slope for n in counts], faint=True)
        )
    return Axes(f"{certificate.name}: {kind}", "steps", "error", series)


def _error_chart(certificate: Certificate) -> Axes | None:
    nfe = certificate.number("exact_error", "nfe")
    if not nfe:
        return None
    names = {"w2_mnist": "MNIST", "w2_natural": "1/f^2 images"}
    series = [Series(label, nfe, certificate.number("exact_error", key)) for key, label in names.items()]
    return Axes("exact 2-Wasserstein error", "evaluations", "W2 / spread of the data", series)
