"""A certificate as files: JSON, a Markdown page and a chart."""

from pathlib import Path

from diffexp.certify.chart import Axes, Series, draw_charts
from diffexp.certify.checks import CHECKS
from diffexp.certify.outcome import Certificate, Outcome, Verdict
from diffexp.files import replace_whole, write_json, write_text

MARKS = {Verdict.PASSED: "✓", Verdict.WARNED: "!", Verdict.FAILED: "✗", Verdict.SKIPPED: "–"}


def folder_name(name: str) -> str:
    """Return a scheduler's name as the name of a folder."""
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


def _page(certificate: Certificate, charts: bool) -> str:
    failures = certificate.failures
    verdict = "**passed**" if not failures else f"**failed**: {', '.join(failures)}"
    lines = [f"# {certificate.name}", "", f"Certificate {verdict}.", ""]
    if charts:
        lines += ["![Order of convergence, and exact error](certificate.png)", ""]
    lines += ["| check | | found |", "|---|---|---|"]
    lines += [_row(name, outcome) for name, outcome in certificate.outcomes.items()]
    made = ", ".join(f"{name} {version}" for name, version in certificate.versions.items())
    lines += ["", f"{made}; {certificate.seconds:.1f} s. What the checks mean:", ""]
    lines += [f"- `{name}`: {CHECKS[name].__doc__}" for name in certificate.outcomes]
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
