"""Progress where no bar can be drawn, as in a file or the log of a cluster: a line every half minute."""

import contextvars
import logging
import sys
import time
from collections.abc import Callable

from tqdm.auto import tqdm

log = logging.getLogger(__name__)

LINE_SECONDS = 30.0
"""Time from one line to the next."""


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(ipython, "config", ())


def draws_bars() -> bool:
    """Whether a bar that changes can be drawn: on a terminal and in a notebook."""
    return sys.stderr.isatty() or is_notebook()


class ProgressLines:
    """Logs a line every half minute.

    Args:
        text: returns the line.
    """

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text
        self._next = time.monotonic() + LINE_SECONDS

    def show(self) -> None:
        """Log the line if it is time."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LINE_SECONDS
            # In an empty context: a line about a whole sweep belongs to no cell, though one may run in this thread.
            contextvars.Context().run(log.info, "%s", self._text())


class LineBar:
    """The progress of one run, in evaluations; see ``diffexp.experiment.context.Bar``."""

    def __init__(self, total: float) -> None:
        self.n: float = 0
        self.total: float | None = total
        self._began = time.monotonic()
        self._lines = ProgressLines(self.text)

    def text(self) -> str:
        """The line: ``sampling: 24 %, 1,200 of 5,000 evaluations, 12.3/s, 05:09 left``."""
        total, rate = self.total or self.n or 1, self.n / max(time.monotonic() - self._began, 1e-9)
        left = f", {tqdm.format_interval((total - self.n) / rate)} left" if rate else ""
        share = 100 * min(1.0, self.n / total)
        return f"sampling: {share:.0f} %, {self.n:,.0f} of {total:,.0f} evaluations, {rate:.3g}/s{left}"

    def update(self, n: int = 1) -> None:
        self.n += n
        self._lines.show()

    def refresh(self) -> None:
        pass

    def close(self) -> None:
        pass
