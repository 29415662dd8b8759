"""Whether Weights & Biases is online, decided without its client, which would prompt or wait."""

from __future__ import annotations

import logging
import netrc
import os
from functools import cache
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from diffexp.components.checkpoints.network import reachable

log = logging.getLogger(__name__)

MODES = ("auto", "online", "offline", "disabled")
PROBE_SECONDS = 2.0


def choose_mode(requested: str) -> str:
    """The mode for ``wandb.init``, determined in advance so that it neither prompts nor waits for a missing network.

    WANDB_MODE takes precedence, then an explicit ``requested``; ``auto`` is online with credentials and a network.
    """
    mode = os.environ.get("WANDB_MODE") or requested
    if mode not in ("auto", "online"):
        return mode
    host = server()
    if not _has_credentials(host.netloc):
        if mode == "online":
            log.warning("W&B mode=online, but there is no API key for %s: logging offline", host.netloc)
        return "offline"
    if mode == "auto" and not server_reachable(host.geturl()):
        log.warning("W&B: %s cannot be reached, logging offline", host.netloc)
        return "offline"
    return "online"


def server() -> SplitResult:
    """The address of the W&B server, which WANDB_BASE_URL may override."""
    return urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")


def _has_credentials(host: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    places = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    for place in places:
        path = Path(place).expanduser() if place else None
        if path is None or not path.is_file():
            continue
        try:
            found = netrc.netrc(path).authenticators(host)
        except (netrc.NetrcParseError, OSError):
            continue
        if found and found[2]:
            return True
    return False


@cache
def server_reachable(url: str) -> bool:
    """Whether the server accepts connections; probed once per process."""
    return reachable(url, PROBE_SECONDS)
