"""Score the trained emoji model: are the drawings recognised, and are they copies of those it was trained on?"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from torch.nn.functional import normalize

from diffexp.components.metrics.clip import Clip
from diffexp.components.metrics.retrieval import NAMES, recognised
from diffexp.experiment.pictures.grid import image_grid
from diffexp.files import replace_whole, write_text
from diffexp.train.emoji.data import Drawing, Emoji
from diffexp.train.emoji.pipeline import generate

log = logging.getLogger(__name__)

AT_ONCE = 64
"""Images compared at a time."""


@dataclass
class EmojiScoring:
    """What is drawn; see ``conf/train.yaml``."""

    prompts: int
    """Drawings of each kind, trained on and held out, spread over all categories and styles."""
    steps: int
    guidance: list[float]
    seed: int
    nearest: int
    """A drawing counts as recognised if its name is among so many names nearest to it."""
    sheet: list[str]
    """Prompts of ``sheet.png``, which is drawn with the guidance that is best for trained ones."""


def score_emoji(data: Emoji, recipe: EmojiScoring, folder: Path) -> Path:
    """Draw what was trained on and what was held out, and write ``scores.json`` and ``sheet.png``.

    For each guidance scale and kind: ``recognised``, the share of drawings whose prompt is among the ``nearest`` of all
    names to it by the CLIP of ``task=emoji_features``; and of the drawing that was trained on and is nearest in pixels,
    how often it shows the emoji that was asked for (``same_emoji``; of a held-out one, in another style) and its median
    distance (``nearest_rms``, of values in [0, 1]), beside that of what was asked for (``asked_rms``).

    Returns ``scores.json``. The prompts are in ``trained.txt`` and ``held_out.txt``.
    """
    pipeline = StableDiffusionPipeline.from_pretrained(folder / "emoji", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    clip = Clip.load(folder / "features", torch.device("cpu"))
    names = (folder / "features" / NAMES).read_text(encoding="utf-8").splitlines()
    texts = normalize(clip.of_texts(names), dim=1)
    found: list[dict[str, Any]] = []
    for kind, held_out in (("trained", False), ("held_out", True)):
        chosen = spread(data.drawings, held_out, recipe.prompts)
        prompts = [f"{data.drawings[i].names[0]}, {data.drawings[i].style}" for i in chosen]
        write_text(folder / f"{kind}.txt", "\n".join([*prompts, ""]))
        for scale in recipe.guidance:
            images = generate(pipeline, prompts, recipe.steps, scale, recipe.seed)
            own = [names.index(data.drawings[i].names[0]) for i in chosen]
            line = {"drawings": kind, "guidance_scale": scale, "count": len(prompts)}
            line["recognised"] = recognised(_embedded(clip, images) @ texts.T, own, recipe.nearest).mean().item()
            found.append(line | neighbours(images, data, chosen))
            log.info("%s", found[-1])
    write_text(folder / "scores.json", json.dumps(found, indent=1))
    best = max((line for line in found if line["drawings"] == "trained"), key=lambda line: line["recognised"])
    images = generate(pipeline, recipe.sheet, recipe.steps, best["guidance_scale"], recipe.seed)
    with replace_whole(folder / "sheet.png") as temporary:
        image_grid(images, columns=8, captions=recipe.sheet).save(temporary)
    return folder / "scores.json"


def spread(drawings: Sequence[Drawing], held_out: bool, count: int) -> list[int]:
    """Indices of ``count`` drawings without other skin tones, evenly over categories, then styles and names."""
    rows = [i for i, one in enumerate(drawings) if one.held_out == held_out and one.weight == 1.0]
    ordered = sorted(rows, key=lambda i: (drawings[i].category, drawings[i].names[0], drawings[i].style))
    places = torch.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().long()
    return [ordered[place] for place in places.unique().tolist()]


def _embedded(clip: Clip, images: Tensor) -> Tensor:
    return torch.cat([normalize(clip.of_images(some), dim=1) for some in images.split(AT_ONCE)])


def neighbours(images: Tensor, data: Emoji, chosen: Sequence[int]) -> dict[str, float]:
    """Compare images (N, 3, 64, 64) in [0, 1], which were to show the drawings ``chosen``, with all trained ones."""
    trained = torch.nonzero(~data.held_out).flatten()
    flat = data.images.flatten(1)[trained].float().div(255)
    pixels = flat.shape[1] ** 0.5
    distances = torch.cat([torch.cdist(some.flatten(1), flat) for some in images.split(AT_ONCE)]) / pixels
    closest = distances.min(dim=1)
    asked = data.images[torch.tensor(chosen)].float().div(255)
    same = [
        data.drawings[int(trained[near])].names[0] == data.drawings[i].names[0]
        for near, i in zip(closest.indices, chosen, strict=True)
    ]
    return {
        "same_emoji": sum(same) / len(same),
        "nearest_rms": closest.values.median().item(),
        "asked_rms": (images - asked).square().mean(dim=(1, 2, 3)).sqrt().median().item(),
    }
