"""SVG as pixels, by Pillow: the elements, paths and styles that our own drawings are made of, and no others."""

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from PIL import Image, ImageColor, ImageDraw, ImageFont

from diffexp.drawing.style import StyleSheet

SCALE, FINER = 2, 2
"""Pixels for one unit of the drawing, and how much finer they are drawn before they are averaged."""
PAPER = "white"
SPELLED: Mapping[str, str] = {
    "≤": "<=",
    "≥": ">=",
    "–": "-",
    "−": "-",
    "×": "x",
    "…": "...",
    "↓": "",
    "↑": "",
    "∞": "inf",
    "ε": "eps",
    "α": "alpha",
    "β": "beta",
    "η": "eta",
    "σ": "sigma",
    "λ": "lambda",
    "₀": "0",
    "√": "sqrt",
    "’": "'",
}
"""What Pillow's font has no letters for."""

Point = tuple[float, float]
Matrix = tuple[float, float, float, float, float, float]
"""x' = a x + c y + e and y' = b x + d y + f, in the order of SVG."""
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"


def rasterized(svg: str) -> Image.Image:
    """The drawing as an RGB image.

    Raises:
        ValueError: it has a path that is not made of straight lines.
    """
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    return _Canvas(root, width, height).image


class _Canvas:
    def __init__(self, root: Element, width: float, height: float) -> None:
        self.size = (width, height)
        self.sheet = StyleSheet("".join(one.text or "" for one in root.iter() if _tag(one) == "style"))
        self.shapes = {own: one for one in root.iter() if (own := one.get("id"))}
        fine = SCALE * FINER
        self.whole = Image.new("RGB", (math.ceil(width * fine), math.ceil(height * fine)), PAPER)
        self.draw = ImageDraw.Draw(self.whole, "RGBA")
        self._element([root], (fine, 0, 0, fine, 0, 0), {"fill": "black", "font-size": "16px"})

    @property
    def image(self) -> Image.Image:
        return self.whole.reduce(FINER)

    def _element(self, path: Sequence[Element], matrix: Matrix, around: Mapping[str, str]) -> None:
        element = path[-1]
        tag = _tag(element)
        if tag in ("defs", "style", "title"):
            return
        style, matrix = self.sheet.style(path, around), _transformed(matrix, element.get("transform", ""))
        if tag == "path":
            for points, closed in _lines(element.get("d", "")):
                self._line([_moved(matrix, point) for point in points], closed, matrix, style)
        elif tag in ("circle", "rect"):
            self._line([_moved(matrix, point) for point in self._outline(element, tag)], True, matrix, style)
        elif tag == "text":
            self._text(element, matrix, style)
        elif tag == "use":
            place = f"translate({element.get('x', 0)} {element.get('y', 0)})"
            shape = self.shapes[element.get("href", "#")[1:]]
            self._element([*path, shape], _transformed(matrix, place), style)
        for child in element:
            self._element([*path, child], matrix, style)

    def _outline(self, element: Element, tag: str) -> list[Point]:
        x, y, radius = (
            float(element.get(name, 0)) for name in (("cx", "cy", "r") if tag == "circle" else ("x", "y", "r"))
        )
        if tag == "circle":
            turns = [2 * math.pi * k / 48 for k in range(48)]
            return [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
        sizes = (element.get(name, "0") for name in ("width", "height"))
        width, height = (
            float(text[:-1]) / 100 * whole if text.endswith("%") else float(text)
            for text, whole in zip(sizes, self.size)
        )
        return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]

    def _line(self, points: Sequence[Point], closed: bool, matrix: Matrix, style: Mapping[str, str]) -> None:
        fill, stroke = (_colour(style, name) for name in ("fill", "stroke"))
        if fill and len(points) > 2:
            self.draw.polygon([*points], fill)
        if not stroke:
            return
        zoom = math.hypot(matrix[0], matrix[1])
        width = max(1, round(_length(style.get("stroke-width", "1")) * zoom))
        dashes = [float(text) * zoom for text in style.get("stroke-dasharray", "").split()]
        course = [*points, points[0]] if closed else [*points]
        for part in _dashed(course, dashes) if dashes else [course]:
            self.draw.line([*part], stroke, width, joint="curve")

    def _text(self, element: Element, matrix: Matrix, style: Mapping[str, str]) -> None:
        text = _spelled(element.text or "")
        zoom, size = math.hypot(matrix[0], matrix[1]), _length(style["font-size"])
        font = ImageFont.load_default(size=size * zoom)
        colour = _colour(style, "fill")
        if not text or colour is None:
            return
        x, y = (float(element.get(name, 0)) for name in "xy")
        dx, dy = (_length(element.get(name, "0"), size) for name in ("dx", "dy"))
        left, top, right, bottom = font.getbbox(text, anchor="ls")
        start = {"middle": -font.getlength(text) / 2, "end": -font.getlength(text)}.get(
            style.get("text-anchor", ""), 0.0
        )
        weight = 1 if style.get("font-weight", "") in ("600", "700", "bold") else 0
        mask = Image.new("L", (math.ceil(right - left) + 4, math.ceil(bottom - top) + 4))
        ImageDraw.Draw(mask).text((2 - left, 2 - top), text, 255, font, anchor="ls", stroke_width=weight)
        turned = mask.rotate(
            -math.degrees(math.atan2(matrix[1], matrix[0])), expand=True, resample=Image.Resampling.BICUBIC
        )
        # The middle of the text's box, from the origin of the text along its own axes.
        across, down = (start + (left + right) / 2) / zoom, (top + bottom) / 2 / zoom
        middle = _moved(matrix, (x + dx + across, y + dy + down))
        corner = (round(middle[0] - turned.width / 2), round(middle[1] - turned.height / 2))
        seen = turned.point([shade * colour[3] // 255 for shade in range(256)])
        self.whole.paste(Image.new("RGB", turned.size, colour[:3]), corner, seen)


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _colour(style: Mapping[str, str], name: str) -> tuple[int, int, int, int] | None:
    value = style.get(name, "none")
    if value == "none":
        return None
    red, green, blue = ImageColor.getrgb(value)[:3]
    return red, green, blue, round(255 * float(style.get("opacity", 1)))


def _length(text: str, font: float = 16) -> float:
    return float(text[:-2]) * font if text.endswith("em") else float(text.removesuffix("px"))


def _spelled(text: str) -> str:
    spelled = "".join(SPELLED.get(letter, letter) for letter in text)
    plain = (one for one in unicodedata.normalize("NFKD", spelled) if not unicodedata.combining(one))
    return "".join(letter if ord(letter) < 128 or letter == "·" else "?" for letter in plain)


def _moved(matrix: Matrix, point: Point) -> Point:
    a, b, c, d, e, f = matrix
    x, y = point
    return a * x + c * y + e, b * x + d * y + f


def _transformed(matrix: Matrix, text: str) -> Matrix:
    for kind, numbers in re.findall(r"(\w+)\(([^)]*)\)", text):
        values = [float(number) for number in re.findall(_NUMBER, numbers)]
        if kind == "translate":
            x, y = _moved(matrix, (values[0], (values[1:] or [0.0])[0]))
            matrix = (*matrix[:4], x, y)
        elif kind == "rotate":
            cos, sin = math.cos(math.radians(values[0])), math.sin(math.radians(values[0]))
            a, b, c, d, e, f = matrix
            matrix = (a * cos + c * sin, b * cos + d * sin, c * cos - a * sin, d * cos - b * sin, e, f)
    return matrix


def _lines(path: str) -> Iterator[tuple[list[Point], bool]]:
    """The lines of a path with absolute M, L, H, V and Z: their points, and whether they are closed."""
    if set(re.findall(r"[A-Za-df-z]", path)) - set("MLHVZ"):
        raise ValueError(f"no straight lines: {path[:40]}")
    points: list[Point] = []
    for command, numbers in re.findall(r"([MLHVZ])([^MLHVZ]*)", path):
        values = [float(number) for number in re.findall(_NUMBER, numbers)]
        if command == "M" and points:
            yield points, False
        if command in "ML":
            points = ([] if command == "M" else points) + list(zip(values[::2], values[1::2]))
        elif command == "H":
            points = points + [(value, points[-1][1]) for value in values]
        elif command == "V":
            points = points + [(points[-1][0], value) for value in values]
        elif points:
            yield points, True
            points = []
    if points:
        yield points, False


def _dashed(points: Sequence[Point], dashes: Sequence[float]) -> Iterator[list[Point]]:
    """The drawn parts of a line of dashes and gaps."""
    number, left = 0, dashes[0]
    for (x, y), (end_x, end_y) in pairwise(points):
        length = math.hypot(end_x - x, end_y - y)
        done = 0.0
        while done < length:
            step = min(left, length - done)
            if number % 2 == 0:
                yield [(x + (end_x - x) * at / length, y + (end_y - y) * at / length) for at in (done, done + step)]
            done, left = done + step, left - step
            if left <= 1e-9:
                number += 1
                left = dashes[number % len(dashes)]
