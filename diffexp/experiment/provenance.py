"""Files that a config only names: what is in them decides the samples, and the config does not say it."""

import hashlib
import platform
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diffexp.components.user_files import pictures_in
from diffexp.experiment.configs import flat

PACKAGES = ("diffexp", "torch", "diffusers", "hydra-core", "omegaconf", "wandb", "torchmetrics", "pillow")


NAMING = ("model", "scheduler", "grid", "loop", "guidance", "prompt", "negative_prompt")
"""Keys of a config whose values may name files."""
TEXTS = ("prompt", "negative_prompt", "loop.source")
"""Those that name one only behind an @."""


def inputs_sha256(config: Mapping[str, Any]) -> str | None:
    """Of all files that the config names, pictures and texts and tables; None where it names none.

    Of folders only those count that the loop takes its pictures from: the weights of models have hashes of their own.
    """
    digest, found = hashlib.sha256(), False
    for key, file in _named(config):
        found, state = True, file.stat()
        digest.update(f"{key}\0".encode() + _digest(file, state.st_mtime_ns, state.st_size))
    return digest.hexdigest() if found else None


@lru_cache(maxsize=4096)  # the cells of a sweep name the same
def _digest(file: Path, changed: int, size: int) -> bytes:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    for key, value in sorted(flat({key: config.get(key) for key in NAMING}).items()):
        if not isinstance(value, str) or not value or key.endswith(".name"):
            continue
        if key in TEXTS and (value.startswith("@@") or not value.startswith("@")):
            continue
        place = Path(value.removeprefix("@") if key in TEXTS else value).expanduser()
        try:
            if place.is_file():
                yield key, place
            elif key.startswith("loop.") and place.is_dir():
                yield from ((key, file) for file in pictures_in(place))
        except (OSError, ValueError):  # no name that a file could have
            continue


@cache
def installed_versions() -> dict[str, str]:
    """Versions of what a result can depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def git_commit() -> str | None:
    """The commit checked out in the working folder, with ``-dirty`` where tracked files differ; None outside of git.

    Asked once: the code that runs is the one that was read at the start.
    """
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() or None
