"""Emoji as images and prompts, from unpacked ``emoji-datasource-*`` packages."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffexp.errors import InputError
from diffexp.files import read_json

SIZE = 64
"""Pixels on a side."""
STYLES = {"google": "noto", "twitter": "twemoji"}
"""What a package's artwork is called in prompts; other packages keep their own name."""
TONES = {"1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark"}
HELD_OUT = 20
"""One (name, style) pair in so many is never trained on."""
CHARACTER_NAMES = "data-by-emoji.json"


@dataclass(frozen=True)
class Drawing:
    """One image file and what it shows."""

    path: Path
    names: tuple[str, ...]
    """Prompts without style, the commonest first."""
    style: str
    category: str
    held_out: bool
    weight: float
    """How often it is drawn in training, relative to others."""


@dataclass(frozen=True)
class Emoji:
    """Images (N, 3, 64, 64) uint8 on white, in the order of ``drawings``."""

    drawings: list[Drawing]
    images: Tensor

    @property
    def held_out(self) -> Tensor:
        """Whether a drawing is never trained on (N,)."""
        return torch.tensor([drawing.held_out for drawing in self.drawings])

    @property
    def weights(self) -> Tensor:
        """How often a drawing is chosen in training (N,), 0 for those held out."""
        return torch.tensor([0.0 if drawing.held_out else drawing.weight for drawing in self.drawings])


def pixels(images: Tensor) -> Tensor:
    """Images in [-1, 1] from uint8."""
    return images.float().div(127.5).sub(1)


def load_emoji(folders: Sequence[str | Path], names: str | Path | None = None) -> Emoji:
    """Read every drawing of the packages.

    Args:
        folders: unpacked npm packages ``emoji-datasource-<vendor>``: ``emoji.json`` and ``img/<vendor>/64/*.png``.
        names: an unpacked ``unicode-emoji-json``, whose ``data-by-emoji.json`` has the names in common use ("red heart"
            for U+2764, whose formal name is "heavy black heart").

    Raises:
        InputError: a folder has no such files.
    """
    common = _common_names(Path(names)) if names else {}
    drawings = [drawing for folder in folders for drawing in _drawings(Path(folder), common)]
    if not drawings:
        raise InputError("data.path: name the unpacked packages, data.path=[emoji-datasource-google,…]")
    return Emoji(drawings, torch.from_numpy(np.stack([_read_image(drawing.path) for drawing in drawings])))


def _drawings(folder: Path, common: dict[str, str]) -> Iterator[Drawing]:
    entries = _read_entries(folder / "emoji.json")
    vendors = sorted(path.parent.name for path in folder.glob("img/*/64"))
    if not entries or not vendors:
        raise InputError(f"data.path={folder}: needs emoji.json and img/<vendor>/64, as in emoji-datasource-google")
    images, style = folder / "img" / vendors[0] / "64", STYLES.get(vendors[0], vendors[0])
    for entry in sorted(entries, key=lambda entry: entry["unified"]):
        names = _names(entry, common)
        held_out = _is_held_out(entry["unified"], style)
        variations = entry.get("skin_variations", {})
        found = [(entry["image"], names, 1.0)]
        # All skin tones of an emoji together are chosen as often as its yellow one.
        found += [
            (variation["image"], tuple(f"{name}, {_tone(tones)}" for name in names), 1 / len(variations))
            for tones, variation in sorted(variations.items())
        ]
        for image, prompts, weight in found:
            if (images / image).is_file():
                yield Drawing(images / image, prompts, style, entry["category"], held_out, weight)


def _read_entries(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []


def _names(entry: dict[str, Any], common: dict[str, str]) -> tuple[str, ...]:
    formal = entry["name"].lower().replace(": ", " ").replace(",", "")
    short = [name.replace("_", " ").replace("-", " ") for name in entry["short_names"]]
    usual = common.get(_without_selectors("".join(chr(int(code, 16)) for code in entry["unified"].split("-"))))
    return tuple(dict.fromkeys([*([usual] if usual else []), formal, *short]))


def _without_selectors(emoji: str) -> str:
    """Drop U+FE0F, "as an image", which some lists write and others leave out."""
    return emoji.replace("\ufe0f", "")


def _tone(tones: str) -> str:
    return " and ".join(f"{TONES[tone]} skin tone" for tone in tones.split("-"))


def _is_held_out(unified: str, style: str) -> bool:
    # By hash, so that the same pairs are held out whatever else is in the folder.
    digest = hashlib.sha256(f"{unified}/{style}".encode()).digest()
    return int.from_bytes(digest[:8]) % HELD_OUT == 0


def _common_names(folder: Path) -> dict[str, str]:
    entries = read_json(folder / CHARACTER_NAMES)
    if not entries:
        raise InputError(f"data.names={folder}: needs {CHARACTER_NAMES}, as in unicode-emoji-json")
    return {_without_selectors(emoji): entry["name"].lower().replace(":", "") for emoji, entry in entries.items()}


def _read_image(path: Path) -> np.ndarray:
    """RGB on white (3, 64, 64) uint8."""
    with Image.open(path) as image:
        drawn = image.convert("RGBA")
    drawn = drawn if drawn.size == (SIZE, SIZE) else drawn.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", drawn.size, "white")
    return np.asarray(Image.alpha_composite(white, drawn).convert("RGB")).transpose(2, 0, 1)
