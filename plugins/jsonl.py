"""A tracker without a service: every run appends lines of JSON to one file.

    python -m diffexp tracker=jsonl steps=5 num_samples=4
    python -m diffexp -m tracker=jsonl scheduler=ddim,euler steps=5,10 num_samples=4

Then ``pandas.read_json("outputs/runs.jsonl", lines=True)``, or

    jq -c 'select(.event == "finish")' outputs/runs.jsonl
"""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffexp import RunInfo, SampleRow, tracker


@tracker
class Jsonl:
    """Lines of JSON, one per event, each with the run's folder: start, step, images, samples, finish.

    Each line is appended with one system call, so that the workers of a sweep can share the file.

    Args:
        path: the file, created if missing, only ever appended to.
        steps: whether to write a line for every step of the first batch.
    """

    def __init__(self, *, path: str = "outputs/runs.jsonl", steps: bool = False) -> None:
        self.path = Path(path)
        self.steps = steps
        self.run_id: str | None = None

    def start(self, info: RunInfo) -> None:
        self.run_id = info.folder.name
        self._folder = str(info.folder)
        self._write("start", name=info.name, group=info.group, tags=info.tags, notes=info.notes, config=info.config)

    def log_step(self, step: int, values: dict[str, float]) -> None:
        if self.steps:
            self._write("step", step=step, **values)

    def log_images(self, key: str, paths: dict[str, Path]) -> None:
        self._write("images", **{key: {caption: str(path) for caption, path in paths.items()}})

    def log_samples(self, rows: Sequence[SampleRow]) -> None:
        self._write("samples", samples=[[row.index, row.caption, row.seed] for row in rows])

    def finish(self, summary: dict[str, float], status: str) -> None:
        self._write("finish", status=status, **summary)

    def _write(self, event: str, **content: Any) -> None:
        known = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "run": self._folder, "event": event}
        line = json.dumps({**known, **content}, default=str) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
