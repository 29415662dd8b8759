"""Progress of a whole sweep: one changing line on a terminal, elsewhere a line every half minute."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tqdm.auto import tqdm

from diffexp.experiment.progress import ProgressLines, draws_bars

REDRAW_SECONDS = 0.25


@dataclass
class CellBar:
    """The progress of one cell, in evaluations; see ``diffexp.experiment.context.Bar``."""

    show: Callable[[], None] = lambda: None
    """Called after every evaluation."""
    n: float = 0
    total: float | None = None

    @property
    def fraction(self) -> float:
        return min(1.0, self.n / self.total) if self.total else 0.0

    def update(self, n: int = 1) -> None:
        self.n += n
        self.show()

    def refresh(self) -> None:
        pass

    def close(self) -> None:
        pass


class Progress:
    """Counts cells and samples.

    Args:
        work: the amount of work of each cell by its number, in any unit.
    """

    def __init__(self, work: Mapping[int, float]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._bars: dict[int, CellBar] = {}
        self._running: set[int] = set()
        self._ended: dict[int, str] = {}
        self._samples = self._counted = 0
        self.note = ""
        """The end of the progress line."""
        self._began = self._redrawn = time.perf_counter()
        self._line = tqdm(
            total=1.0,
            bar_format="{percentage:3.0f}%|{bar:16}| {desc}",
            disable=not draws_bars(),
            leave=False,
            dynamic_ncols=True,
        )
        self._lines = ProgressLines(lambda: f"{self._percent()} %, {self.text()}")

    def start(self, number: int) -> CellBar:
        """Count a cell as running; returns its bar."""
        with self._lock:
            self._running.add(number)
            return self._bars.setdefault(number, CellBar())

    def finished(self, samples: int) -> None:
        """Count samples that have been written to disk."""
        with self._lock:
            self._samples += samples

    def end(self, number: int, status: str) -> None:
        """Count a cell as over: ``done``, ``failed`` or ``interrupted``; not one that another worker has."""
        with self._lock:
            self._running.discard(number)
            if status != "elsewhere":
                self._ended[number] = status

    def adopt(self, running: Mapping[int, float], samples: int) -> None:
        """Count as running what others run: the finished fraction by number of the cell, and all samples written."""
        with self._lock:
            self._running = {number for number in running if number not in self._ended}
            self._bars = {number: CellBar(n=fraction, total=1.0) for number, fraction in running.items()}
            self._samples = samples

    def state(self) -> tuple[dict[int, float], dict[int, str], int]:
        """The finished fraction of every running cell, how the others ended, and the samples written so far."""
        with self._lock:
            return {number: self._share(number) for number in self._running}, dict(self._ended), self._samples

    def fraction(self) -> float:
        """The finished fraction of all work."""
        whole = sum(self._work.values())
        return sum(work * self._share(number) for number, work in self._work.items()) / whole if whole else 1.0

    def _percent(self) -> int:
        """Whole percents; 100 only once every cell has ended, for metrics and files come after the last evaluation."""
        return min(math.floor(100 * self.fraction()), 100 if len(self._ended) >= len(self._work) else 99)

    def _share(self, number: int) -> float:
        if number in self._ended:
            return 1.0
        bar = self._bars.get(number)
        return bar.fraction if bar else 0.0

    def count(self) -> str:
        """Number the reports of finished cells: ``10/24`` at the tenth call."""
        with self._lock:
            self._counted += 1
            return f"{self._counted}/{len(self._work)}"

    def text(self) -> str:
        """The progress line: ``10 of 24 cells done, 8 running, 6 waiting, 12.3 samples/s, 0:42 left``."""
        with self._lock:
            elapsed = time.perf_counter() - self._began
            ended, running = len(self._ended), len(self._running)
            failed = sum(status != "done" for status in self._ended.values())
            fraction, rate = self.fraction(), self._samples / elapsed
        parts = [f"{ended - failed} of {len(self._work)} cells done"]
        parts += [f"{failed} failed"] if failed else []
        parts += [f"{running} running", f"{len(self._work) - ended - running} waiting", f"{rate:.3g} samples/s"]
        if 0 < fraction < 1:
            parts.append(f"{tqdm.format_interval(elapsed * (1 - fraction) / fraction)} left")
        return ", ".join([*parts, self.note] if self.note else parts)

    def show(self) -> None:
        """Redraw the line, a few times a second at most; or log it, every half minute."""
        now = time.perf_counter()
        if self._line.disable:
            self._lines.show()
            return
        if now < self._redrawn + REDRAW_SECONDS:
            return
        self._redrawn = now
        with self._lock:
            self._line.n = self.fraction()
        self._line.set_description_str(self.text())

    def close(self) -> None:
        self._line.close()
