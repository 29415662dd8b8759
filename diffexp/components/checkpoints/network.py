"""Reachability of servers, determined without a long wait."""

import socket
import threading
import urllib.request
from urllib.parse import urlsplit


def reachable(url: str, seconds: float) -> bool:
    """Whether the host of ``url``, or the proxy towards it, accepts a connection within ``seconds``."""
    target = urlsplit(url)
    proxy = urllib.request.getproxies().get(target.scheme)
    if proxy and not urllib.request.proxy_bypass(target.netloc):
        target = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = target.hostname or "", target.port or (443 if target.scheme == "https" else 80)
    connected = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except OSError:
            return
        connected.set()

    # In a thread, because the time limit of a socket does not cover the lookup of its name.
    probe = threading.Thread(target=connect, daemon=True)
    probe.start()
    probe.join(seconds)
    return connected.is_set()
