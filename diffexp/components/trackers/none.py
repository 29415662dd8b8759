"""No tracking, only the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffexp import tracker
from diffexp.components.trackers.base import RunInfo, SampleRow


@tracker(name="none")
class NoTracker:
    """Logs nothing."""

    run_id: str | None = None

    def start(self, info: RunInfo) -> None:
        pass

    def log_step(self, step: int, values: dict[str, float]) -> None:
        pass

    def log_images(self, key: str, paths: dict[str, Path]) -> None:
        pass

    def log_samples(self, rows: Sequence[SampleRow]) -> None:
        pass

    def finish(self, summary: dict[str, float], status: str) -> None:
        pass
