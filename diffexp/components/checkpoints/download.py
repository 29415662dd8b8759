"""Checkpoints of the Hugging Face hub as folders: from the cache without a connection, else downloaded.

Without a network huggingface_hub waits 23 s and then raises a misleading error. So the cache is searched first,
then one short probe decides whether to download; the error messages are our own.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from diffexp.components.checkpoints.layout import Incomplete, list_files
from diffexp.components.checkpoints.network import reachable
from diffexp.errors import InputError

PROBE_SECONDS = 1.5
ANSWER_SECONDS = 3.0

Fetch = Callable[[Sequence[str]], Path]
"""Downloads these files of a repository; returns the folder that they are in."""


class CheckpointSpec(Protocol):
    """The files that a model needs of a repository."""

    @property
    def marker_files(self) -> Sequence[str]:
        """Files of which every copy has at least one."""
        ...

    def complete(self, folder: Path) -> bool:
        """Whether a folder has all files.

        Raises:
            InputError: the folder holds another kind of checkpoint.
        """
        ...

    def choose(self, names: Sequence[str], fetch: Fetch, /) -> list[str]:
        """The files of a repository that are needed; small ones may be fetched to determine this.

        Raises:
            InputError: the repository holds another kind of checkpoint, or none that can be used.
        """
        ...


@dataclass(frozen=True)
class Spec:
    """A ``CheckpointSpec`` by one function: a folder is complete where ``choose`` finds what it needs."""

    choose: Callable[[Sequence[str], Fetch], list[str]]
    marker_files: Sequence[str]

    def complete(self, folder: Path) -> bool:
        try:
            return bool(self.choose(list_files(folder), lambda _: folder))
        except Incomplete:
            return False


def locate(id: str, revision: str | None, spec: CheckpointSpec, key: str = "model.id") -> Path:
    """The folder of a checkpoint: a given folder, one in the cache, or a download; ``key`` is for messages.

    Raises:
        InputError: no such folder, ``id`` is not a hub id, or the checkpoint cannot be downloaded or used.
    """
    folder = Path(id).expanduser()
    if id and folder.is_dir():
        if revision is not None:
            raise InputError(f"model.revision={revision}: {id} is a folder and has no revisions; leave it out")
        return folder
    if re.match(r"[./~]", id) or id.count("/") > 1:
        raise InputError(f"{key}={id}: no such folder")
    return find_on_hub(id, revision, spec, key)


def find_on_hub(id: str, revision: str | None, spec: CheckpointSpec, key: str = "model.id") -> Path:
    """The folder of a checkpoint, after downloading the needed files that the cache lacks.

    Raises:
        InputError: ``id`` is not a hub id, or the checkpoint cannot be downloaded or used.
    """
    try:
        validate_repo_id(id)
    except HFValidationError:
        raise InputError(f"{key}={id} is neither a folder nor a hub id such as google/ddpm-church-256") from None
    cached = _cached(id, revision, spec.marker_files)
    if cached is not None and spec.complete(cached):
        return cached
    reason = why_unreachable()
    if reason is None:
        return _download(id, revision, spec, f"{key}={id}")
    state = "is neither a folder nor in the cache" if cached is None else "is only partly in the cache"
    command = f"hf download {id}" + (f" --revision {revision}" if revision else "")
    raise InputError(
        f"{key}={id} {state} {constants.HF_HUB_CACHE}, and {reason}; "
        f"run '{command}' where there is a network and copy that cache here, or give a folder"
    )


def _cached(id: str, revision: str | None, marker_files: Sequence[str]) -> Path | None:
    for marker in marker_files:
        path = try_to_load_from_cache(id, marker, cache_dir=constants.HF_HUB_CACHE, revision=revision)
        if isinstance(path, str):
            return Path(path.removesuffix(marker))
    return None


def why_unreachable() -> str | None:
    """The reason why nothing can be downloaded from the hub, as a clause; None if it can be reached."""
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE=1 forbids downloading it"
    if reachable(constants.ENDPOINT, PROBE_SECONDS):
        return None
    return f"{urlsplit(constants.ENDPOINT).hostname} cannot be reached"


def _download(id: str, revision: str | None, spec: CheckpointSpec, source: str) -> Path:
    def fetch(names: Sequence[str]) -> Path:
        patterns = list(names)
        return Path(snapshot_download(id, revision=revision, allow_patterns=patterns, cache_dir=constants.HF_HUB_CACHE))

    try:
        siblings = HfApi().model_info(id, revision=revision, timeout=ANSWER_SECONDS).siblings or []
        return fetch(spec.choose([sibling.rfilename for sibling in siblings], fetch))
    except InputError:
        raise
    except GatedRepoError:
        raise InputError(f"{source} is gated: accept its terms on its page, then 'hf auth login'") from None
    except RevisionNotFoundError:
        raise InputError(f"model.revision={revision}: {id} has no such branch, tag or commit") from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{source} is neither a folder nor on the hub; check the spelling, or 'hf auth login' if it is private"
        ) from None
    except Exception as error:  # the transport has dozens of ways to break off
        raise InputError(f"{source} could not be downloaded: {' '.join(str(error).split())[:300]}") from error
