"""Caches of diffusers for the networks of pipelines: blocks whose output changes little are not computed anew."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import hooks

from diffexp.components.models.text_to_image.paused_call import is_distilled
from diffexp.errors import InputError, hint

CLOCK = "current_timestep_callback"
"""The argument of a cache that returns the timestep at hand."""
DISTILLED = "is_guidance_distilled"
"""The argument of a cache that says whether batches are without a half for classifier-free guidance."""


def caches() -> dict[str, type]:
    """The configs of all caches by name: ``first_block``, ``pyramid_attention_broadcast``, ..."""
    found = {name: value for name, value in vars(hooks).items() if re.search(r"(Cache|Broadcast)Config$", name)}
    return {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", re.sub(r"(Cache)?Config$", "", n)).lower(): c for n, c in found.items()}


def enable_cache(pipe: Any, cache: str | Mapping[str, Any]) -> None:
    """Cache in the transformers of a pipeline.

    Args:
        pipe: the pipeline.
        cache: its name, or a mapping of ``name`` and the options of its config.

    Raises:
        InputError: no such cache, option, or network that has one.
    """
    options: dict[str, Any] = {"name": cache} if isinstance(cache, str) else dict(cache)
    name, known = str(options.pop("name", "")), caches()
    if name not in known:
        raise InputError(f"model.cache={name} is not known{hint(name, known)}")
    parameters = inspect.signature(known[name]).parameters
    if CLOCK in parameters:
        options[CLOCK] = lambda: pipe.current_timestep
    if DISTILLED in parameters:  # else a batch is taken for two halves, one for each side of guidance
        options = {DISTILLED: is_distilled(pipe)} | options
    parts = [part for part in pipe.components.values() if hasattr(part, "enable_cache")]
    if not parts:
        raise InputError(f"model.cache={name}: a {type(pipe).__name__} has no network that caches; leave it out")
    try:
        for part in parts:
            part.enable_cache(known[name](**options))
    except Exception as error:  # some of their code takes large networks for granted
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"model.cache={name} cannot be used in a {type(pipe).__name__} ({reason})") from error


def reset_caches(networks: list[torch.nn.Module]) -> None:
    """Forget what earlier calls have left in caches."""
    for network in networks:
        if getattr(network, "is_cache_enabled", False):
            network._reset_stateful_cache()  # pyright: ignore[reportCallIssue]
