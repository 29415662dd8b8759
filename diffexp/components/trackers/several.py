"""The trackers of a run: each is called in a thread of its own, and one that fails ends nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexp.components.trackers.base import Comparison, RunInfo, SampleRow, Tracker
from diffexp.errors import one_line

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

BEHIND = 2
"""Calls that wait for a tracker from which on it counts as behind."""


class Guarded:
    """A tracker that never raises: it logs the first error of each method of the wrapped one.

    A call that fails costs itself alone; without a ``start`` that succeeds all others are ignored. Methods that the
    wrapped one does not have do nothing.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker: Tracker | None = tracker
        self._run_id: str | None = None
        self._failed: set[str] = set()

    @property
    def run_id(self) -> str | None:
        """Identifier of the run, also after an error."""
        return self._run_id

    def start(self, info: RunInfo) -> None:
        self._try("start", lambda tracker: tracker.start(info))
        self._try("run_id", self._read_run_id)

    def log_step(self, step: int, values: dict[str, float]) -> None:
        self._try("log_step", lambda tracker: tracker.log_step(step, values))

    def log_images(self, key: str, paths: dict[str, Path]) -> None:
        self._try("log_images", lambda tracker: tracker.log_images(key, paths))

    def log_samples(self, rows: Sequence[SampleRow]) -> None:
        self._try("log_samples", lambda tracker: tracker.log_samples(rows))

    def finish(self, summary: dict[str, float], status: str) -> None:
        self._try("finish", lambda tracker: tracker.finish(summary, status))

    def call(self, method: str, *arguments: Any) -> None:
        """Call a method of ``LiveTracker``, if there is one."""
        self._try(method, lambda tracker: getattr(tracker, method, _ignore)(*arguments))

    def _read_run_id(self, tracker: Tracker) -> None:
        self._run_id = tracker.run_id

    def _try(self, what: str, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except (Exception, SystemExit) as error:
            if what not in self._failed:
                failure = type(self._tracker).__name__, what, one_line(error)
                log.warning("tracker %s failed in %s, the run goes on without it: %s", *failure)
                log.debug("the tracker's traceback", exc_info=True)
            self._failed.add(what)
            if what == "start":
                self._tracker = None


def _ignore(*arguments: Any) -> None:
    pass


class _Line:
    """A tracker with the thread in which it is called, in order."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = Guarded(tracker)
        self._thread = ThreadPoolExecutor(1, f"tracker {type(tracker).__name__}")
        self._pending: list[Future[None]] = []

    def submit(self, call: Callable[[Guarded], None]) -> Future[None]:
        future = self._thread.submit(call, self.tracker)
        self._pending = [one for one in self._pending if not one.done()] + [future]
        return future

    @property
    def is_behind(self) -> bool:
        return sum(not one.done() for one in self._pending) >= BEHIND

    def close(self) -> None:
        self._thread.shutdown(wait=False)


class Trackers:
    """Logs a run to any number of trackers; see ``Tracker`` and ``LiveTracker``.

    A call returns at once, except ``start``, ``finish`` and ``compare``, which wait until every tracker is done.

    Args:
        trackers: by name.
    """

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._lines = {name: _Line(tracker) for name, tracker in trackers.items()}

    def __bool__(self) -> bool:
        return bool(self._lines)

    @property
    def run_ids(self) -> dict[str, str]:
        """Identifiers of the run by the tracker's name, of those that have one."""
        return {name: found for name, line in self._lines.items() if (found := line.tracker.run_id) is not None}

    @property
    def is_behind(self) -> bool:
        """Whether some tracker has not yet logged what it was given."""
        return any(line.is_behind for line in self._lines.values())

    def start(self, info: Callable[[str], RunInfo]) -> None:
        """Begin the run, which ``info`` describes for each tracker by its name."""
        starts = {name: info(name) for name in self._lines}
        self._wait({name: lambda tracker, own=own: tracker.start(own) for name, own in starts.items()})

    def log_step(self, step: int, values: dict[str, float]) -> None:
        self._all(lambda tracker: tracker.log_step(step, values))

    def log_images(self, key: str, paths: dict[str, Path]) -> None:
        self._all(lambda tracker: tracker.log_images(key, paths))

    def log_samples(self, rows: Sequence[SampleRow]) -> None:
        self._all(lambda tracker: tracker.log_samples(rows))

    def log_preview(self, step: int, image: Image.Image) -> None:
        self._all(lambda tracker: tracker.call("log_preview", step, image))

    def log_batch(self, rows: Sequence[SampleRow], done: int) -> None:
        self._all(lambda tracker: tracker.call("log_batch", rows, done))

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        self._all(lambda tracker: tracker.call("log_metrics", samples, values))

    def log_facts(self, facts: Mapping[str, Any]) -> None:
        self._all(lambda tracker: tracker.call("log_facts", facts))

    def log_files(self, name: str, files: Mapping[str, Path]) -> None:
        self._all(lambda tracker: tracker.call("log_files", name, files))

    def log_media(self, files: Mapping[str, Path]) -> None:
        self._all(lambda tracker: tracker.call("log_media", files))

    def finish(self, summary: dict[str, float], status: str) -> None:
        """Close the run everywhere; there are no calls after this one."""
        self._last(lambda tracker: tracker.finish(summary, status))

    def compare(self, comparison: Comparison) -> None:
        """Log the results of a sweep; there are no calls after this one."""
        self._last(lambda tracker: tracker.call("compare", comparison))

    def _all(self, call: Callable[[Guarded], None]) -> None:
        for line in self._lines.values():
            line.submit(call)

    def _last(self, call: Callable[[Guarded], None]) -> None:
        try:
            self._wait(dict.fromkeys(self._lines, call))
        finally:
            for line in self._lines.values():
                line.close()

    def _wait(self, calls: Mapping[str, Callable[[Guarded], None]]) -> None:
        futures = [self._lines[name].submit(call) for name, call in calls.items()]
        wait(futures)
        for future in futures:
            future.result()  # of what is not an Exception, such as KeyboardInterrupt
