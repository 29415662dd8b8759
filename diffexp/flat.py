"""Configs as dotted keys, and where they differ."""

from collections.abc import Mapping, Sequence
from typing import Any


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
