"""A server on this machine that wandb's client logs to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from diffexp.components.trackers.wandb import TAKES_RUNS
from diffexp.components.trackers.wandb_mode import server_reachable
from tests.wandb_server import KEY, WandbServer


@pytest.fixture(scope="module")
def started() -> Iterator[WandbServer]:
    """One for all tests: wandb's client asks the address once, so that it has to forget that of earlier tests."""
    wandb.teardown()
    with WandbServer() as server:
        yield server
    wandb.teardown()


@pytest.fixture
def server(started: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WandbServer:
    """The server as if it were new."""
    for name in ("MODE", "SILENT"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "home"))
    for name in ("STATS", "MACHINE_INFO", "META"):
        monkeypatch.setenv(f"WANDB__DISABLE_{name}", "true")
    for kind in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER"):
        monkeypatch.setenv(f"WANDB__{kind}_RETRY_WAIT_MIN_SECONDS", "0.2")
        monkeypatch.setenv(f"WANDB__{kind}_RETRY_WAIT_MAX_SECONDS", "0.5")
    server_reachable.cache_clear()
    TAKES_RUNS.clear()
    monkeypatch.setenv("WANDB_BASE_URL", started.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    started.start()
    started.clear()
    return started
