"""Configs as plain containers: dotted keys, where they differ, values that follow from other keys."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffexp.catalog.discover import Catalog
from diffexp.catalog.kinds import KINDS
from diffexp.components.prompts import read_texts
from diffexp.errors import InputError
from diffexp.plan.levels import listed_steps

KEYS_OF_THE_RECORD = ("workers", "resume", "objective", "stop", "name", "tags", "notes", "tracker", "samples")
"""Keys that affect nothing of a run but its record, and the kind of its files."""
KEYS_OF_THE_REPORT = (*KEYS_OF_THE_RECORD, "metric", "snapshot_every")
"""Keys that affect no sample, only what is measured, drawn and recorded of them."""
SAMPLES = 64
"""Number of samples by default, for models without the trait ``default_samples``."""
ONE_PER_PROMPT = "one per prompt"
"""A value of that trait; others are numbers, as in ``@model(default_samples=4)``."""


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of flat configs whose values differ."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]


def choices(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The kind and the node of everything that a config chooses."""
    for kind in KINDS.values():
        yield from ((kind.name, node) for node in kind.nodes(config[kind.name]))


def steps_of(config: Mapping[str, Any]) -> int:
    """The number of steps: ``steps``, or the length of an explicit timestep schedule."""
    listed = listed_steps(config["grid"].get("timesteps"), config["grid"].get("sigmas"))
    return config["steps"] if listed is None else listed


def usual_samples(model: str, prompt: str | list[str] | None, catalog: Catalog) -> int:
    """Number of samples where the user sets none: the model's trait ``default_samples``, small for large networks."""
    entry = catalog.find("model", model)
    number = entry.traits.get("default_samples", SAMPLES) if entry else SAMPLES
    if number != ONE_PER_PROMPT:
        return number
    try:
        texts = read_texts("prompt", prompt)
    except InputError:  # the run raises it
        return 1
    return len(texts) if isinstance(texts, list) else 1
