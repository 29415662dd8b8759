"""The page of a learned plan: curve, images, table against the start's, and the comparison."""

import base64
import io
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from diffexp.components.metrics.half_samples import Estimate
from diffexp.experiment.pictures.grid import image_grid
from diffexp.experiment.pictures.points import scatter
from diffexp.files import write_text
from diffexp.learn.fit import Curve
from diffexp.learn.gate import ACCURACY, PSNR, Measured, Proof
from diffexp.learn.problem import Problem
from diffexp.plan.table import Plan
from diffexp.report.assets import asset
from diffexp.report.charts import Chart, Curve as Line, Point, marker_definitions
from diffexp.report.page import template

STYLES = ("chart", "report")


def write_page(file: Path, problem: Problem, plan: Plan, curve: Curve, proof: Proof | None) -> None:
    """Write the page."""
    config = problem.config
    html = template("learned.html.j2", "diffexp.learn").render(
        styles=[asset(f"{name}.css") for name in STYLES],
        title=f"{problem.run.model.id} · {plan.nfe} evaluations · learned by {problem.settings.method}",
        origin=plan.origin or {},
        start=f"{config['scheduler']['name']} on {config['grid']['name']}",
        markers=marker_definitions(),
        curve=_chart(curve).svg() if len(curve.points) > 1 else "",
        rows=_rows(problem.base, plan),
        drawings=[Markup(one.plot().svg) for one in (problem.base, plan)],
        proof=proof,
        metrics=_metrics(proof),
        accuracy=next((name for name in _metrics(proof) if name in ACCURACY), ""),
        images=_images(proof),
    )
    write_text(file, html)


def _chart(curve: Curve) -> Chart:
    points = [Point(0, one["iteration"], one["score"]) for one in curve.points]
    return Chart("On noises that are not learned from", "iteration", curve.unit, [Line("learned", 0, points)])


def _rows(start: Plan, plan: Plan) -> list[dict[str, Any]]:
    """Levels of both plans, side by side."""
    pairs = zip(start.unscaled().rows, plan.unscaled().rows)
    return [
        {
            "step": k,
            "sigmas": (before.level.ratio, after.level.ratio),
            "timesteps": (before.level.timestep, after.level.timestep),
        }
        for k, (before, after) in enumerate(pairs)
    ]


def _metrics(proof: Proof | None) -> dict[str, list[tuple[str, int | None, str]]]:
    """For each metric the plans with their values and intervals, the best first."""
    found: dict[str, list[tuple[float, str, int | None, str]]] = {}
    for one in proof.measured if proof else ():
        for name, estimate in one.estimates.items():
            found.setdefault(name, []).append((estimate.value, one.name, one.nfe, _text(estimate)))
    return {
        name: [row[1:] for row in sorted(rows, key=lambda row: row[0], reverse=name == PSNR)]
        for name, rows in found.items()
    }


def _text(estimate: Estimate) -> str:
    ends = estimate.interval
    return f"{estimate.value:.4g}" + (f" ({ends[0]:.4g} to {ends[1]:.4g})" if ends else "")


def _images(proof: Proof | None) -> list[tuple[str, Markup]]:
    """The first samples of each plan as pictures in a row."""
    return [(one.name, _picture(one)) for one in (proof.measured if proof else ())]


def _picture(one: Measured) -> Markup:
    images = torch.nan_to_num(one.images)
    picture = scatter(images, None, one.name) if images.ndim == 2 else image_grid(images, columns=len(images))
    out = io.BytesIO()
    picture.save(out, "PNG")
    content = base64.b64encode(out.getvalue()).decode()
    return Markup('<img alt="samples" style="max-width:100%" src="data:image/png;base64,{}">').format(content)
