"""Configs as plain containers: dotted keys, where they differ, values that follow from other keys."""

from collections.abc import Mapping, Sequence
from typing import Any

from diffexp.components.prompts import read_texts
from diffexp.errors import InputError
from diffexp.plan.levels import listed_steps

SAMPLES, SAMPLES_OF_A_CHECKPOINT = 64, 4
"""How many are drawn where nobody says; a checkpoint may be large."""


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of flat configs that do not have the same value everywhere."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; lists stay as they are."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def steps_of(config: Mapping[str, Any]) -> int:
    """``steps``, unless the grid is a list."""
    listed = listed_steps(config["grid"].get("timesteps"), config["grid"].get("sigmas"))
    return config["steps"] if listed is None else listed


def usual_samples(model: str, prompt: str | list[str] | None) -> int:
    """The number of samples where nobody sets one: so many that the first images are soon there."""
    if model == "hub":
        return SAMPLES_OF_A_CHECKPOINT
    if model != "pipeline":
        return SAMPLES
    try:
        texts = read_texts("prompt", prompt)
    except InputError:  # the run says it
        return 1
    return len(texts) if isinstance(texts, list) else 1
