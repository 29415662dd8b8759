"""Writing of files beside the sampling of a run.

A run that has its process to itself writes in a thread of its own (``RunContext.writer``): where the network runs on a
device, images are encoded while the next batch is drawn; on CPUs, whose cores the network takes, the difference is
within noise. A cell of a batched sweep is such a thread already, and writes in it.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait


class Writer:
    """Writes at once, in the calling thread."""

    def write(self, job: Callable[[], None]) -> None:
        """Write a batch by calling ``job``, whose errors are raised here, in a later call, or in ``wait``."""
        job()

    def wait(self) -> None:
        """Wait until everything is on disk."""

    def close(self) -> None:
        """Wait like ``wait``, without raising; nothing can be written any more."""


class BackgroundWriter(Writer):
    """Writes in a thread of its own, in order.

    One batch at a time: the next one waits for it, so that memory holds no more than two, and so that a full disk ends
    the run before another batch is finished.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writer")
        self._pending: Future[None] | None = None

    def write(self, job: Callable[[], None]) -> None:
        self.wait()
        self._pending = self._thread.submit(job)

    def wait(self) -> None:
        if self._pending is not None:
            wait([self._pending])  # where an interrupt leaves it pending
            done, self._pending = self._pending, None
            done.result()

    def close(self) -> None:
        self._thread.shutdown(wait=True)
