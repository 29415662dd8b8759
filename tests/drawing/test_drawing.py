"""Drawings as SVG and as PNG."""

from pathlib import Path

import pytest
from PIL import Image

from diffexp.drawing import Drawing
from diffexp.drawing.raster import rasterized
from diffexp.errors import InputError

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 40 20">'
STYLE = """<style>
:root { --ink: #ff0000; --c0: #0000ff; }
@media (prefers-color-scheme: dark) { :root { --ink: #ffffff; } }
.series path { fill: none; stroke: currentColor; stroke-width: 4; }
.c0 { color: var(--c0); }
.faint { opacity: .5; }
</style>"""
Colour = tuple[int, int, int]
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def colour(body: str, x: float, y: float) -> Colour:
    """The colour at a place of a drawing, in units of the drawing."""
    image = rasterized(f"{HEAD}{STYLE}{body}</svg>")
    assert image.size == (80, 40), "two pixels for one unit"
    found = image.getpixel((int(2 * x), int(2 * y)))
    assert isinstance(found, tuple)
    return found  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    ("body", "place", "expected"),
    [
        ('<rect width="100%" height="50%" fill="var(--ink)"/>', (20, 5), RED),
        ('<rect width="100%" height="50%" fill="var(--ink)"/>', (20, 15), WHITE),
        ('<circle cx="10" cy="10" r="4" fill="#0000ff"/>', (10, 10), BLUE),
        ('<circle cx="10" cy="10" r="4" fill="#0000ff"/>', (15, 10), WHITE),
        ('<g class="series c0"><path d="M0 10H40"/></g>', (20, 10), BLUE),
        ('<g class="series c0"><path d="M2 2V18H38L2 2"/></g>', (2, 10), BLUE),
        ('<g class="series c0"><path d="M2 2V18H38L2 2"/></g>', (10, 14), WHITE),
        ('<g class="c0"><path d="M10-4L36 4V30H10Z" fill="currentColor"/></g>', (20, 10), BLUE),
        ('<g class="series c0 faint"><path d="M0 10H40"/></g>', (20, 10), (127, 127, 255)),
        (
            '<defs><g id="m"><rect x="-3" y="-3" width="6" height="6"/></g></defs><use href="#m" x="30" y="10"/>',
            (30, 10),
            (0, 0, 0),
        ),
        ('<g transform="translate(20 10) rotate(-90)"><rect width="8" height="2" fill="red"/></g>', (21, 4), RED),
        ('<path d="M0 10H40" stroke="red" stroke-width="6" stroke-dasharray="10 10"/>', (5, 10), RED),
        ('<path d="M0 10H40" stroke="red" stroke-width="6" stroke-dasharray="10 10"/>', (15, 10), WHITE),
    ],
)
def test_elements_and_styles(body: str, place: tuple[float, float], expected: Colour) -> None:
    found = colour(body, *place)
    assert all(abs(a - b) <= 2 for a, b in zip(found, expected)), found


@pytest.mark.parametrize(
    ("attributes", "inside", "outside"),
    [
        ('x="10" y="14"', (10, 5, 36, 16), (0, 0, 8, 20)),
        ('x="30" y="14" text-anchor="end"', (4, 5, 30, 16), (32, 0, 40, 20)),
        ('transform="translate(24 19) rotate(-90)"', (12, 2, 26, 18), (28, 0, 40, 20)),
    ],
)
def test_text_is_where_it_belongs(attributes: str, inside: tuple[int, ...], outside: tuple[int, ...]) -> None:
    image = rasterized(f'{HEAD}<text {attributes} font-size="9px">WWW</text></svg>').convert("L")
    box = [2 * edge for edge in inside]
    assert min(image.crop((box[0], box[1], box[2], box[3])).tobytes()) < 60
    box = [2 * edge for edge in outside]
    assert min(image.crop((box[0], box[1], box[2], box[3])).tobytes()) == 255


def test_letters_that_the_font_does_not_have_are_spelled() -> None:
    assert rasterized(f'{HEAD}<text y="12">≤ σ é 中</text></svg>').tobytes() == (
        rasterized(f'{HEAD}<text y="12">&lt;= sigma e ?</text></svg>').tobytes()
    )


def test_a_curve_is_refused_instead_of_left_out() -> None:
    with pytest.raises(ValueError, match="no straight lines"):
        rasterized(f'{HEAD}<path d="M0 0C1 1 2 2 3 3"/></svg>')


def test_a_drawing_is_saved_as_its_name_ends(tmp_path: Path) -> None:
    drawing = Drawing(f'{HEAD}<rect width="40" height="20" fill="red"/></svg>', "red")
    assert drawing._repr_svg_() == drawing.svg
    assert drawing.save(tmp_path / "a.svg").read_text() == drawing.svg
    with Image.open(drawing.save(str(tmp_path / "a.png"))) as image:
        assert (image.format, image.size) == ("PNG", (80, 40))
    for name, message in (("a.pdf", "ends in neither .svg nor .png"), ("no/a.svg", "there is no folder")):
        with pytest.raises(InputError, match=message):
            drawing.save(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg"]
