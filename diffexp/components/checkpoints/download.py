"""A checkpoint of the Hugging Face hub as a folder: from the cache without asking the network, else downloaded.

huggingface_hub alone waits 23 s without a network and then names the wrong culprit. So the cache comes first, one
short probe second, and what is missing is said in our own words.
"""

import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Sequence
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

from diffexp.errors import InputError

PROBE_SECONDS = 1.5
ANSWER_SECONDS = 3.0

Fetch = Callable[[Sequence[str]], Path]
"""Brings these files of a repository; the folder they are in."""


class Need(Protocol):
    """What is wanted of a repository."""

    @property
    def landmarks(self) -> Sequence[str]:
        """Files, one of which every copy has."""
        ...

    def complete(self, folder: Path) -> bool:
        """Whether a folder has everything.

        Raises:
            InputError: it is something else.
        """
        ...

    def choose(self, names: Sequence[str], fetch: Fetch) -> list[str]:
        """Which of a repository's files are needed; small ones may be fetched to find out.

        Raises:
            InputError: it is something else, or nothing that can be used.
        """
        ...


def locate(id: str, revision: str | None, need: Need, key: str = "model.id") -> Path:
    """The folder of a checkpoint: the one given, that in the cache, or a download; ``key`` is for messages.

    Raises:
        InputError: no such folder, ``id`` is no hub id, or the checkpoint cannot be had or used.
    """
    folder = Path(id).expanduser()
    if id and folder.is_dir():
        if revision is not None:
            raise InputError(f"model.revision={revision}: {id} is a folder and has no revisions; leave it out")
        return folder
    if re.match(r"[./~]", id) or id.count("/") > 1:
        raise InputError(f"{key}={id}: no such folder")
    return find_on_hub(id, revision, need, key)


def find_on_hub(id: str, revision: str | None, need: Need, key: str = "model.id") -> Path:
    """The folder of a checkpoint, after downloading the files it needs if the cache lacks them.

    Raises:
        InputError: ``id`` is no hub id, or the checkpoint cannot be had or used.
    """
    try:
        validate_repo_id(id)
    except HFValidationError:
        raise InputError(f"{key}={id} is neither a folder nor a hub id such as google/ddpm-church-256") from None
    cached = _cached(id, revision, need.landmarks)
    if cached is not None and need.complete(cached):
        return cached
    obstacle = _obstacle()
    if obstacle is None:
        return _download(id, revision, need, f"{key}={id}")
    state = "is neither a folder nor in the cache" if cached is None else "is only partly in the cache"
    command = f"hf download {id}" + (f" --revision {revision}" if revision else "")
    raise InputError(
        f"{key}={id} {state} {constants.HF_HUB_CACHE}, and {obstacle}; "
        f"run '{command}' where there is a network and copy that cache here, or give a folder"
    )


def _cached(id: str, revision: str | None, landmarks: Sequence[str]) -> Path | None:
    for landmark in landmarks:
        path = try_to_load_from_cache(id, landmark, cache_dir=constants.HF_HUB_CACHE, revision=revision)
        if isinstance(path, str):
            return Path(path.removesuffix(landmark))
    return None


def _obstacle() -> str | None:
    """What stands between here and the hub, in words that follow "and"; None where it answers."""
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE=1 forbids downloading it"
    target = urlsplit(urllib.request.getproxies().get("https") or constants.ENDPOINT)
    port = target.port or (80 if target.scheme == "http" else 443)
    host = target.hostname or "huggingface.co"
    reached = threading.Event()

    def probe() -> None:
        try:
            socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
            reached.set()
        except OSError:
            pass
        finally:
            finished.set()

    # In a thread, because the time limit of a connection does not cover the name lookup before it.
    finished = threading.Event()
    threading.Thread(target=probe, daemon=True).start()
    finished.wait(PROBE_SECONDS)
    return None if reached.is_set() else f"{host} cannot be reached"


def _download(id: str, revision: str | None, need: Need, source: str) -> Path:
    def fetch(names: Sequence[str]) -> Path:
        patterns = list(names)
        return Path(snapshot_download(id, revision=revision, allow_patterns=patterns, cache_dir=constants.HF_HUB_CACHE))

    try:
        siblings = HfApi().model_info(id, revision=revision, timeout=ANSWER_SECONDS).siblings or []
        return fetch(need.choose([sibling.rfilename for sibling in siblings], fetch))
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
