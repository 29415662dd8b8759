"""The end of a worker by a signal: the batches that it draws are finished first, where there is time."""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

SIGTERM_SECONDS = 20.0
"""How long batches may take after a SIGTERM: SLURM kills what is left of a job 30 s after it."""
ANNOUNCED_SECONDS = 50.0
"""The same after SIGUSR2, by which clusters announce the end of a job; submitit's comes 90 s before it."""


class Ending:
    """Whether this process is to end, and the batches that it still draws."""

    def __init__(self) -> None:
        self.is_requested = False
        self._batches: set[object] = set()
        # Its methods need no lock, which the code that a signal interrupts might hold.

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Surround the drawing of a batch of samples.

        Raises:
            KeyboardInterrupt: the end has been requested; no further batch is begun.
        """
        if self.is_requested:
            raise KeyboardInterrupt
        batch = object()
        self._batches.add(batch)
        try:
            yield
        finally:
            self._batches.discard(batch)

    def request(self, seconds: float) -> None:
        """End this process by a KeyboardInterrupt in its main thread, which is the one to call this.

        Args:
            seconds: how long the batches that are being drawn may take; without any, or at 0, the end is at once.

        Raises:
            KeyboardInterrupt: at once.
        """
        self.is_requested = True
        if not self._batches or seconds <= 0:
            raise KeyboardInterrupt
        timer = threading.Timer(seconds, self._give_up)
        timer.daemon = True
        timer.start()

    def _give_up(self) -> None:
        """Interrupt the batches that still are in work; what else the process does then, it writes."""
        if self._batches:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # also where it sleeps

    def check(self) -> None:
        """Raise KeyboardInterrupt if the end has been requested and no batch is being drawn any more."""
        if self.is_requested and not self._batches:
            raise KeyboardInterrupt


def end_by_signals(ending: Ending, announced: float = ANNOUNCED_SECONDS) -> None:
    """Let the signals of clusters end this process, the first of them: they are sent to a process twice.

    SIGINT, as Ctrl-C, and SIGHUP, as of a terminal that is closed, end it at once.

    Args:
        announced: how long batches may take after a SIGUSR2, in seconds.
    """
    seconds: Mapping[str, float] = {
        "SIGTERM": min(SIGTERM_SECONDS, announced),
        "SIGUSR2": announced,
        "SIGHUP": 0.0,
    }
    numbers = {number: limit for name, limit in seconds.items() if (number := getattr(signal, name, None))}

    def end(number: int, _: object) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        ending.request(numbers[number])

    for number in numbers:  # not all systems have all
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, end)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts in the background
