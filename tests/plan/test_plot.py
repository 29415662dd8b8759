"""``Plan.plot``: what is drawn, and that it is a file of its own."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

import diffexp
from diffexp.plan.plot import panels

SVG = "{http://www.w3.org/2000/svg}"


def texts(plan: diffexp.Plan) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(plan.plot().svg).iter(f"{SVG}text")]


def test_levels_coefficients_and_noise_over_the_evaluations() -> None:
    plan = diffexp.compile("dpmpp_2m_sde", steps=7)
    levels, coefficients, noise = panels(plan.rows)
    assert levels.lines["alpha"] == [level.alpha for level in plan.levels]
    assert levels.lines["noise_std"] == [level.sigma for level in plan.levels]
    assert coefficients.lines["x[k]"] == [row.x[0] for row in plan.rows]
    assert coefficients.lines["m[k-1]"][0] is None, "there is no evaluation before the first"
    assert noise.lines["noise"] == [abs(sum(row.z)) for row in plan.rows]
    found = texts(plan)
    assert {"x[k]", "m[k]", "m[k-1]", "alpha", "noise_std", "noise", "evaluation", "0", "6"} <= set(found)
    assert len(panels(diffexp.compile("ddim", steps=7).rows)) == 2, "no noise, no panel"


def test_clipped_estimates_are_coefficients_too() -> None:
    plan = diffexp.compile("ddim", steps=4, model="mnist")
    assert plan.rows[0].clamps
    assert panels(plan.rows)[1].lines["d0[k]"] == [row.d[0][0] for row in plan.rows]


@pytest.mark.parametrize(
    ("scheduler", "steps", "options"),
    [("ddim", 1, {}), ("diffusers/euler", 30, {}), ("heun", 200, {}), ("pndm", 9, {})],
)
def test_plans_of_any_kind_fit_into_their_drawing(scheduler: str, steps: int, options: dict, tmp_path: Path) -> None:
    plan = diffexp.compile(scheduler, steps=steps, **options)
    drawing = plan.plot()
    tree = ElementTree.fromstring(drawing.svg)
    _, _, width, height = map(float, tree.attrib["viewBox"].split())
    marks = list(tree.iter(f"{SVG}circle"))
    assert bool(marks) == (plan.nfe <= 60), "of very many evaluations only lines"
    assert all(0 < float(mark.attrib["cx"]) < width and 0 < float(mark.attrib["cy"]) < height for mark in marks)
    assert drawing.title.startswith(plan.name)
    with Image.open(drawing.save(tmp_path / "plan.png")) as image:
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20
