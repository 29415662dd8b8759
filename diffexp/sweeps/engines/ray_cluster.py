"""The connection to a Ray cluster, and what Ray says of actors that die."""

import logging
import re
import socket
from typing import Any

from diffexp.errors import InputError

CONNECT_SECONDS = 10.0
"""How long a cluster may take to answer; Ray itself tries for minutes."""


def connect(address: str | None) -> Any:
    """Connect this process to a cluster, or start one here; returns the package ``ray``.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("hydra/launcher=ray needs Ray: pip install 'diffexp[ray]'") from error
    try:
        if place := re.fullmatch(r"([\w.-]+):(\d+)", address or ""):
            socket.create_connection((place[1], int(place[2])), CONNECT_SECONDS).close()
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        advice = "start one with ray start --head, or leave the address out and one starts here"
        raise InputError(f"hydra.launcher.address={address}: {reason}; {advice}") from error
    return ray


def death_reason(error: Exception) -> str:
    """Why an actor has died, in one line."""
    text = " ".join(str(error).split())
    if "node has died" in text:
        return "node failure"
    return "Ray's process was killed (out of memory?)" if "worker process has died" in text else text
