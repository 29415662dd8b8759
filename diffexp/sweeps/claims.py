"""The cells of a sweep that many workers share: each takes what is open, and holds the lock of a cell while it runs it.

The lock is the lease: it ends with its process, and other machines see by its time that the holder is dead (see
``diffexp.experiment.lock``). Whoever finds a cell unlocked that is neither done nor has failed in this attempt may run
it, and goes on with the samples that it has.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffexp.catalog.discover import Catalog
from diffexp.experiment.lock import FolderInUse, Watch, lock
from diffexp.experiment.parts import has_open_parts
from diffexp.experiment.rounds import WAITING, Round, samples_of
from diffexp.files import read_json, write_json
from diffexp.sweeps.cell import Cell, amount_of_work, model_key
from diffexp.sweeps.failures import FILE as FAILURE, record_loss
from diffexp.sweeps.source import Elsewhere, runs_alone
from diffexp.sweeps.work import NAME as WORK, Work, read_work
from diffexp.sweeps.workers import Journal, live_workers, read_end

log = logging.getLogger(__name__)

FILE = ".hydra/claim.json"
POLL_SECONDS = 1.0
"""How often the folder is searched for open cells, at most."""
COUNT_SECONDS = 5.0
"""How often the workers are counted."""
IDLE_SECONDS = 300.0
"""How long a worker waits for cells that others run; after that the driver starts a new one, should it be needed."""
REASON_SECONDS = 3.0
"""How long to wait for the engine's reason why a worker has ended."""
MOST_LOSSES = 3
"""After so many workers that were lost with a cell, one after the other, it has failed."""


class WorkersLost(RuntimeError):
    """A cell took its workers along, again and again."""


@dataclass(frozen=True)
class Claim:
    """The record of who runs a cell; left behind by a worker that is lost."""

    attempt: int
    """The attempt at the sweep."""
    losses: int
    """How many workers were lost with the cell since it last got on."""
    drawn: int
    """Samples of finished batches when the worker began."""
    worker: str
    """Name of the worker's folder."""
    title: str
    """The worker in messages."""


def read_claim(folder: Path) -> Claim | None:
    """The claim in the folder of a cell; None if there is none."""
    found = read_json(folder / FILE)
    return Claim(**found) if found.keys() == Claim.__dataclass_fields__.keys() else None


def status_of(folder: Path, now: Round | None = None) -> str | None:
    """``done`` or ``failed`` for a cell that is over in this attempt; None for any other.

    Args:
        now: the round that the cell is run in; one that waits for the next round is done.
    """
    if (folder / FAILURE).is_file():
        return "failed"
    record = read_json(folder / "run.json")
    waits = now and not now.final and record.get("status") == WAITING and samples_of(record) >= now.samples
    return "done" if waits or record.get("status") == "done" else None


class Claims:
    """The open cells of a sweep, for one worker; see ``diffexp.sweeps.source.Source``.

    Args:
        on_done: is called with the folder of every cell that others have done.
    """

    def __init__(
        self, work: Work, catalog: Catalog, journal: Journal, on_done: Callable[[Path], None] = lambda folder: None
    ) -> None:
        self._on_done = on_done
        self._folder = work.folder
        self._catalog = catalog
        self._journal = journal
        self._watch = Watch()
        self._over: dict[int, str] = {}
        self._rounds: dict[int, Round | None] = {}
        self._mine: dict[int, Cell] = {}
        self._busy: dict[int, Cell] = {}
        """Cells that others ran when the folder was last searched."""
        self._helped: Cell | None = None
        """A cell that another worker runs and this one draws parts of."""
        self._refused: set[int] = set()
        """Cells that this worker cannot help with."""
        self._next_look: dict[object, float] = {}
        self._workers = 1
        self._stamp = 0
        self._adopt(work)

    def next_model(self, loaded: str) -> str | None:
        waiting_since = time.monotonic()
        while True:
            self._reread()
            free = self._free()
            if free:
                model = self._best(free, loaded)
                for alone in (True, False):
                    self._next_look.pop((model, alone), None)
                return model
            self._helped = self._divided(loaded)
            if self._helped:
                return model_key(self._helped.config)
            waits_for_driver = self._work.more and self._watch.is_held(self._folder)
            if not self._busy and not waits_for_driver:
                return None
            if not waits_for_driver and time.monotonic() > waiting_since + IDLE_SECONDS:
                return None
            self._journal.show()
            time.sleep(POLL_SECONDS)

    def cells_of(self, model: str) -> Sequence[Cell]:
        return self._models.get(model, ())

    def take(self, model: str, alone: bool) -> Cell | None:
        self._reread()
        helped = self._helped
        if alone and helped and helped.number not in self._mine and model_key(helped.config) == model:
            self._mine[helped.number] = helped
            return helped
        if not alone and len(self._mine) >= self._fair_share():
            return None
        if not self._is_time((model, alone)):
            return None
        for cell in self.cells_of(model):
            if self._is_free(cell) and self._alone(cell) == alone:
                self._mine[cell.number] = cell
                self._next_look.pop((model, alone), None)
                return cell
        return None

    def helps(self, cell: Cell) -> bool:
        """Whether a cell that was taken is one that another worker runs, and has parts to draw."""
        return cell is self._helped

    def refuse(self, cell: Cell) -> None:
        """Help with a cell no more."""
        self._refused.add(cell.number)

    @contextmanager
    def claim(self, cell: Cell) -> Iterator[None]:
        if self.helps(cell):  # its parts are claimed one by one
            yield
            return
        with ExitStack() as stack:
            try:
                stack.enter_context(lock(cell.folder))
            except FolderInUse as error:
                raise Elsewhere from error
            if status_of(cell.folder, cell.round):
                raise Elsewhere
            try:
                self._record(cell.folder)
                yield
            finally:
                with suppress(OSError):
                    (cell.folder / FILE).unlink(missing_ok=True)

    def ended(self, cell: Cell, status: str) -> None:
        del self._mine[cell.number]
        self._helped = None
        if status == "elsewhere":
            self._busy[cell.number] = cell
            self._next_look[cell.number] = time.monotonic() + POLL_SECONDS
        elif status != "interrupted" and self._rounds.get(cell.number) == cell.round:
            self._over[cell.number] = status

    def _record(self, folder: Path) -> None:
        """Write the claim of a cell whose lock is held.

        Raises:
            WorkersLost: too many workers were lost with the cell.
        """
        drawn = _drawn(folder)
        left = self._left_behind(folder)
        losses = 0 if left is None else 1 if drawn > left.drawn else left.losses + 1
        worker = self._journal.worker
        if left and losses >= MOST_LOSSES:
            reason = _reason(self._folder, left)
            error = WorkersLost(f"{losses} workers were lost with this cell, at last {left.title}: {reason}")
            record_loss(folder, f"{type(error).__name__}: {error}")
            raise error
        if left:
            log.warning("%s was lost with %s and goes on alone", folder.name, left.title)
        with suppress(OSError):  # on a full disk; the run will say so
            write_json(folder / FILE, asdict(Claim(self._work.attempt, losses, drawn, worker.name, worker.title)))

    def _left_behind(self, folder: Path) -> Claim | None:
        """The claim of a worker that was lost with a cell in this attempt; the folder must not be locked by another."""
        left = read_claim(folder)
        return left if left and left.attempt == self._work.attempt else None

    def _alone(self, cell: Cell) -> bool:
        """Whether a cell runs by itself: also a run that workers share, whose batches are then those of one process."""
        lost = self._left_behind(cell.folder) is not None
        return lost or self._work.is_run or runs_alone(cell, self._catalog)

    def _divided(self, loaded: str) -> Cell | None:
        """A cell that others run and that has open parts, best one of the loaded model."""
        busy = [cell for number, cell in self._busy.items() if number not in self._refused]
        busy.sort(key=lambda cell: model_key(cell.config) != loaded)
        return next((cell for cell in busy if has_open_parts(cell.folder, self._watch)), None)

    def _free(self) -> list[Cell]:
        """The cells that this worker could run; notes those that others run."""
        return [cell for cells in self._models.values() for cell in cells if self._is_free(cell)]

    def _is_free(self, cell: Cell) -> bool:
        number = cell.number
        if number in self._over or number in self._mine or time.monotonic() < self._next_look.get(number, 0.0):
            return False
        self._busy.pop(number, None)
        if status := status_of(cell.folder, cell.round):
            self._over[number] = status
            self._journal.end(number, status)
            if status == "done":
                self._on_done(cell.folder)
            return False
        if self._watch.is_held(cell.folder):
            self._busy[number] = cell
            self._next_look[number] = time.monotonic() + POLL_SECONDS
            return False
        return True

    def _best(self, free: Sequence[Cell], loaded: str) -> str:
        """The loaded model, or the one with the most open cells for each that is run already."""
        counts = Counter(model_key(cell.config) for cell in free)
        busy = Counter(model_key(cell.config) for cell in self._busy.values())
        return loaded if loaded in counts else max(counts, key=lambda model: counts[model] / (1 + busy[model]))

    def _fair_share(self) -> int:
        """How many cells to run at once: of all that are not over or run by others, as much as each other worker."""
        if self._is_time("workers", COUNT_SECONDS):
            self._workers = max(1, len(live_workers(self._folder, self._watch)))
        left = len(self._work.cells) - len(self._over) - len(self._busy)
        return -(-left // self._workers)

    def _is_time(self, what: object, seconds: float = POLL_SECONDS) -> bool:
        """Whether to look at something now, which is then not done again for some seconds."""
        now = time.monotonic()
        if now < self._next_look.get(what, 0.0):
            return False
        self._next_look[what] = now + seconds
        return True

    def _reread(self) -> None:
        """Read the work file again if it was written since: a search has more cells, or the sweep is resumed."""
        if self._is_time(WORK):
            with suppress(OSError):
                stamp = (self._folder / WORK).stat().st_mtime_ns  # before it is read
                if stamp != self._stamp:
                    self._adopt(read_work(self._folder))
                    self._stamp = stamp

    def _adopt(self, work: Work) -> None:
        self._work = work
        self._models: dict[str, list[Cell]] = {}
        for cell in work.cells:
            self._models.setdefault(model_key(cell.config), []).append(cell)
        if work.attempt != self._journal.worker.attempt:
            self._over.clear()
            self._next_look.clear()
        rounds = {cell.number: cell.round for cell in work.cells}
        for number in [number for number, now in rounds.items() if now != self._rounds.get(number)]:
            self._over.pop(number, None)
        self._rounds = rounds
        self._journal.begin({cell.number: amount_of_work(cell) for cell in work.cells}, work.attempt)


def _drawn(folder: Path) -> int:
    found: Any = read_json(folder / "run.json").get("drawn")
    return found if isinstance(found, int) else 0


def _reason(sweep: Path, left: Claim) -> str:
    """Why the worker of a claim has ended, which its engine may be about to find out."""
    deadline = time.monotonic() + REASON_SECONDS
    while (found := read_end(sweep, left.worker)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return found or "its process ended without a word (out of memory?)"
