"""Provenance of a result besides its config: the content of files, package versions, the commit."""

import hashlib
import platform
import socket
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diffexp.catalog.types import flat
from diffexp.components.user_files import images_in
from diffexp.files import read_yaml, sha256_of_file

PACKAGES = ("diffexp", "torch", "diffusers", "hydra-core", "omegaconf", "wandb", "torchmetrics", "pillow")
FILE_KEYS = ("model", "scheduler", "grid", "loop", "guidance", "prompt", "negative_prompt", "pipe")
"""Config keys whose values may name files."""
TEXT_KEYS = ("prompt", "negative_prompt", "loop.source")
"""Config keys whose values are text unless they begin with @."""


def inputs_sha256(config: Mapping[str, Any]) -> str | None:
    """SHA-256 of every file that the config refers to, so that resume and caches notice changed content.

    None where it refers to none. Of folders only those of the loop's images count: weights of models have hashes of
    their own.
    """
    digest, found = hashlib.sha256(), False
    for key, file in _files(config):
        found = True
        digest.update(f"{key}\0".encode() + bytes.fromhex(sha256_of_file(file)))
    return digest.hexdigest() if found else None


def _files(config: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    for key, value in sorted(flat({key: config.get(key) for key in FILE_KEYS}).items()):
        if not isinstance(value, str) or not value or key.endswith(".name"):
            continue
        if key in TEXT_KEYS and (value.startswith("@@") or not value.startswith("@")):
            continue
        place = Path(value.removeprefix("@") if key in TEXT_KEYS else value).expanduser()
        try:
            if place.is_file():
                yield key, place
            elif key.startswith("loop.") and place.is_dir():
                yield from ((key, file) for file in images_in(place))
        except (OSError, ValueError):  # not a possible file name
            continue


def given_config_dir(composed: Path) -> str | None:
    """The ``--config-dir`` of a run, from its ``.hydra/hydra.yaml``; without it the config is found to differ."""
    try:
        if "command-line" not in composed.read_text(encoding="utf-8"):  # spares the reading
            return None
        sources = read_yaml(composed)["hydra"]["runtime"]["config_sources"]
        given = [source["path"] for source in sources if source["provider"] == "command-line"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return given[0] if given else None


@cache
def hostname() -> str:
    """The name of this machine."""
    return socket.gethostname()


@cache
def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result can depend on; what is not installed is missing."""
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

    Read once per process, whose code is that of its start.
    """
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None
