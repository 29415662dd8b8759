"""Writes the page of a sweep while it runs, in a thread of the process that runs or drives the sweep."""

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from diffexp.files import write_text

if TYPE_CHECKING:
    from diffexp.report.live_report import SweepPage

log = logging.getLogger(__name__)

EVERY_SECONDS = 3.0
"""How often the page is written, at most."""
SHARE = 0.01
"""Of the time of a sweep that its page may take."""


class LivePage:
    """Writes the page of a sweep from its first cell on.

    Args:
        sweep: folder of the sweep.
        file: the page.
        every: seconds between two pages, at least; more if making one takes more than ``SHARE`` of them.
    """

    def __init__(self, sweep: Path, file: Path, every: float = EVERY_SECONDS) -> None:
        self._sweep = sweep
        self._file = file
        self._every = self._wait = every
        self._page: SweepPage | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live page", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write no more: a page that is being made is dropped."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._wait):
            try:
                self._update()
            except OSError as error:  # a full disk may have room later
                log.debug("no page of the running sweep: %s", error)
            except Exception as error:
                log.warning("no page of the running sweep: %s: %s", type(error).__name__, error)
                log.debug("its traceback", exc_info=error)
                return

    def _update(self) -> None:
        if self._page is None:
            # Before a cell has begun, the thread that runs it imports the same modules.
            if not any(self._sweep.glob("*/run.json")):
                return
            from diffexp.report.live_report import SweepPage

            self._page = SweepPage(self._sweep, self._file)
        # What cells lose, on one core and to Python's global lock, is the processor time of this thread.
        began = time.thread_time()
        text = self._page.html(self._wait)
        if text and not self._ended.is_set():
            write_text(self._file, text)
        self._wait = max(self._every, (time.thread_time() - began) / SHARE)
