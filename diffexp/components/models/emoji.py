"""The text-to-image model that ships with the package: emoji, 64x64 in colour, from their English names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from diffexp import model
from diffexp.components.models.base import Model, Runtime
from diffexp.components.models.pipeline import pipeline
from diffexp.errors import InputError

WEIGHTS = Path(__file__).parent / "weights" / "emoji"
GUIDANCE = 3.0
"""The scale at which the most drawings were recognised, see the model card; 7.5, the default of SD 1.5, is too much."""


def emoji_folder() -> Path:
    """The folder of ``model=emoji``, which ``StableDiffusionPipeline.from_pretrained`` of diffusers loads.

    Raises:
        InputError: this installation came without it.
    """
    return _existing(WEIGHTS)


@model(default_samples="one per prompt")
def emoji(runtime: Runtime, *, weights: str | None = None) -> Model:
    """Emoji from their English names: a Stable Diffusion pipeline trained by ``python -m diffexp.train task=emoji``.

    Samples are latents 12x8x8, decoded to 64x64 pixels. ``prompt="red heart"``, or with a style,
    ``prompt="red heart, noto"``: ``noto`` (Noto Emoji) or ``twemoji`` (Twemoji).

    Args:
        weights: a folder such as training writes; by default the weights in the package.

    Raises:
        InputError: the folder holds no such pipeline.
    """
    folder = _existing(Path(weights).expanduser() if weights else WEIGHTS)
    loaded: Any = pipeline(runtime, id=str(folder))
    return replace(loaded, id="emoji", feature_domain="emoji", usual_scale=GUIDANCE)


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"model.weights={folder}: no such folder; python -m diffexp.train task=emoji makes one")
    return folder
