"""Two small packages of drawings, laid out as ``emoji-datasource-google`` and ``emoji-datasource-twitter`` are."""

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 80, 220), "black": (20, 20, 20)}
SHAPES = ("circle", "square", "bar", "heart", "moon")


def save_packages(folder: Path) -> list[Path]:
    """Write 20 drawings in each of two styles, one of them with two skin tones besides."""
    return [_save_package(folder / f"emoji-datasource-{vendor}", vendor) for vendor in ("google", "twitter")]


def _save_package(folder: Path, vendor: str) -> Path:
    (folder / "img" / vendor / "64").mkdir(parents=True)
    entries = [_entry(f"{colour} {shape}", 0x1F600 + i) for i, (colour, shape) in enumerate(_things())]
    entries[0]["skin_variations"] = {
        tone: {"image": f"1f600-{tone.lower()}.png", "unified": f"1F600-{tone}"} for tone in ("1F3FB", "1F3FF")
    }
    for entry, (colour, shape) in zip(entries, _things()):
        images = [entry["image"], *(tone["image"] for tone in entry.get("skin_variations", {}).values())]
        for image in images:
            _drawing(colour, shape, margin=8 if vendor == "google" else 14).save(folder / "img" / vendor / "64" / image)
    (folder / "emoji.json").write_text(json.dumps(entries))
    return folder


def _things() -> list[tuple[str, str]]:
    return [(colour, shape) for colour in COLOURS for shape in SHAPES]


def _entry(name: str, code: int) -> dict[str, Any]:
    short = [name.replace(" ", "_"), f"{name.split()[1]}-{name.split()[0]}"]
    unified = f"{code:X}"
    return {
        "name": name.upper(),
        "unified": unified,
        "image": f"{unified.lower()}.png",
        "short_names": short,
        "category": "Symbols",
    }


def _drawing(colour: str, shape: str, margin: int) -> Image.Image:
    image = Image.new("RGBA", (64, 64))
    draw, box = ImageDraw.Draw(image), (margin, margin, 63 - margin, 63 - margin)
    ink = COLOURS[colour]
    if shape == "square":
        draw.rectangle(box, ink)
    elif shape == "bar":
        draw.rectangle((margin, 28, 63 - margin, 36), ink)
    elif shape == "moon":
        draw.chord(box, 90, 270, ink)
    elif shape == "heart":
        draw.polygon([(32, 60 - margin), (margin, margin + 8), (32, margin + 16), (63 - margin, margin + 8)], ink)
    else:
        draw.ellipse(box, ink)
    return image
