"""The driver of a sweep over workers: starts them, shows how far they are, replaces those that die.

It does no work itself, and may die: workers go on, and the driver of a resumed sweep finds them.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from diffexp.errors import InputError
from diffexp.experiment.lock import PATIENCE_SECONDS, Watch
from diffexp.files import read_json, write_json
from diffexp.sweeps.cell import Cell, amount_of_work, batches_of, distinguishing_words
from diffexp.sweeps.claims import FILE as CLAIM, read_claim, status_of
from diffexp.sweeps.engines.base import Ended, Engine
from diffexp.sweeps.failures import FILE as FAILURE, Failure, clear_failure, record_interrupt
from diffexp.sweeps.logs import sweep_logging
from diffexp.sweeps.outcome import end_line, names_of, stopping_text
from diffexp.sweeps.progress import Progress
from diffexp.sweeps.work import Work
from diffexp.sweeps.workers import FOLDER, live_workers, read_end, read_workers, record_end

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""How often the folder is read, at most; it takes a tenth of the time."""
MOST_SECONDS = 10.0
"""The longest time between two looks at the folder, however slow its disk is."""
CLOSE_SECONDS = 5.0
"""How long workers may take to notice that there is nothing left to do."""


class Driver:
    """Runs cells by workers.

    Args:
        engine: starts the workers.
        work: the sweep, without cells.
    """

    def __init__(self, engine: Engine, work: Work) -> None:
        self._engine = engine
        self._work = work
        self._folder = work.folder
        self._watch = Watch()
        self._adopted = engine.adopt(work.folder)
        self._others = self._live_others()
        """The workers of an earlier driver that the engine does not know, or those that were started by hand."""
        if work.attempt == 1:
            self._refuse_workers()
        self._useless = 0
        """Workers that ended since the sweep last got on: dying counts once, giving up or never beginning thrice."""
        self._samples = 0
        self._last_end = ""
        self._told = set[str]()
        """Warnings of cells that were printed."""

    def _live_others(self) -> set[str]:
        live = live_workers(self._folder, self._watch)
        return {one.name for one in read_workers(self._folder) if one.name in live and one.job not in self._adopted}

    def _refuse_workers(self) -> None:
        """Raise InputError if workers of an earlier sweep still run; of other machines that takes a while to know."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._others and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            self._others = self._live_others()
        if self._others or self._adopted:
            number = len(self._others | self._adopted)
            raise InputError(
                f"workers of an earlier sweep still run in {self._folder} ({number} of them); "
                "wait until they have ended, or choose another folder with hydra.sweep.dir=..."
            )

    def run(self, cells: Sequence[Cell], more: bool, goes_on: bool = False) -> list[Failure]:
        """Have the cells run, and wait until each is over, or no worker is left that could run it.

        Args:
            more: whether further cells may follow.
            goes_on: whether the cells were run by this driver before, and get more samples.

        Returns:
            A failure for every cell that was lost; those of cells that failed are in their folders.

        Raises:
            KeyboardInterrupt: after the workers have written what they had finished, and ended.
        """
        self._prepare(cells, anew=self._work.attempt == 1 and not goes_on)
        known = {cell.number: cell for cell in (*self._work.cells, *cells)}
        self._work = replace(self._work, cells=tuple(known.values()), more=more)
        self._work.write()
        self._useless = 0
        words, left = distinguishing_words(cells), {cell.number: cell for cell in cells}
        progress = Progress({cell.number: amount_of_work(cell) for cell in cells})
        try:
            with sweep_logging():
                self._note_those_done(left, progress)
                while True:
                    began = time.monotonic()
                    for ended in self._engine.ended():  # before the cells, which have ended before their worker
                        if message := self._note_end_of(ended):
                            log.warning("%s", message)
                    self._note_ends(left, words, progress)
                    self._show(progress)
                    took = time.monotonic() - began  # without the start of workers, which is no reason to look seldom
                    if not left or not self._has_workers(
                        sum(batches_of(cell.samples, cell.config) for cell in left.values())
                    ):
                        break
                    time.sleep(min(max(POLL_SECONDS, 10 * took), MOST_SECONDS))
        except BaseException:
            self._stop(len(left))
            raise
        finally:
            progress.close()
            lost = self._settle(cells)
        return lost

    def close(self) -> None:
        """Tell the workers that no further cells follow, and wait until they have ended.

        One that still holds a cell is not asked to end: a cell that is done may be uploaded by its tracker.
        """
        if self._work.more:
            self._work = replace(self._work, more=False)
            self._work.write()
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._engine.running() and (time.monotonic() < deadline or self._holds_any()):
            time.sleep(POLL_SECONDS / 5)
        self._engine.stop()

    def _holds_any(self) -> bool:
        """Whether a worker holds the lock of a cell."""
        return any(self._watch.is_held(cell.folder) for cell in self._work.cells)

    def _prepare(self, cells: Sequence[Cell], *, anew: bool) -> None:
        """Open the cells that are to run: of a resumed sweep those that failed, of a new one all."""
        for cell in cells:
            clear_failure(cell.folder)
            if not self._watch.is_held(cell.folder):
                (cell.folder / CLAIM).unlink(missing_ok=True)  # of an earlier attempt
            if anew and cell.folder != self._folder:  # what an earlier sweep left there
                (cell.folder / "run.json").unlink(missing_ok=True)
            elif status_of(cell.folder) == "done":
                from diffexp.experiment.finished import finished_run  # imports torch

                if finished_run(cell.folder) is None:
                    record = read_json(cell.folder / "run.json")
                    write_json(cell.folder / "run.json", record | {"status": "interrupted"})

    def _note_those_done(self, left: dict[int, Cell], progress: Progress) -> None:
        done = [number for number, cell in left.items() if status_of(cell.folder, cell.round) == "done"]
        for number in done:
            del left[number]
            progress.end(number, "done")
        if done:
            log.info("%d of them are done already", len(done))

    def _note_ends(self, left: dict[int, Cell], words: dict[int, str], progress: Progress) -> None:
        """Log how cells have ended since the last time."""
        for number, cell in list(left.items()):
            status = status_of(cell.folder, cell.round)
            if status is None:
                continue
            del left[number]
            self._useless = 0
            progress.end(number, status)
            if cell.round and not cell.round.final and status == "done":
                continue
            message = read_json(cell.folder / FAILURE).get("message", "") if status == "failed" else None
            log.info("[%s] %s", progress.count(), end_line(cell, words.get(number, ""), status, message))

    def _show(self, progress: Progress) -> None:
        """Show what all workers do together."""
        live = live_workers(self._folder, self._watch)
        known = [worker for worker in read_workers(self._folder) if worker.attempt == self._work.attempt]
        running = {cell: share for worker in known if worker.name in live for cell, share in worker.running.items()}
        samples = sum(worker.samples for worker in known)
        if samples > self._samples:
            self._samples, self._useless = samples, 0
        progress.adopt(running, samples)
        progress.note = f"{len(live)} workers"
        progress.show()
        for text, cell in (one for worker in known for one in worker.warnings.items()):
            if text not in self._told:
                self._told.add(text)
                log.warning("%s%s", cell and f"{cell}: ", text)

    def _has_workers(self, left: int) -> bool:
        """Start as many workers as are needed; whether there are any.

        Args:
            left: how many workers could do something at the same time, at most.
        """
        others = len(self._others & live_workers(self._folder, self._watch)) if self._others else 0
        missing = min(self._engine.workers, left) - self._engine.running() - others
        if missing > 0 and self._useless <= 3 * self._engine.workers + 2:
            try:
                self._engine.start(self._folder, missing)
            except InputError as error:  # perhaps for now: a quota; those that run go on
                if not self._engine.running() and not others:
                    raise
                self._useless += 3
                log.warning("%s; the others go on", error)
        return bool(self._engine.running() or others)

    def _note_end_of(self, ended: Ended) -> str:
        """Record why a worker has ended, for those who find its cells; a message, if it did not end by itself."""
        worker = next((one for one in reversed(read_workers(self._folder)) if one.job == ended.job), None)
        self._useless += 1 if ended.reason and worker else 3
        title = worker.title if worker else ended.job
        self._last_end = f"{title}: {ended.reason or 'ended'}"
        if ended.reason is None:
            return ""
        running = sorted(worker.running) if worker else []
        if worker:
            record_end(self._folder, worker.name, ended.reason)
        names = {cell.number: cell.folder.name for cell in self._work.cells}
        cells = names_of([names[number] for number in running if number in names])
        return self._last_end + (f"; it ran {cells}" if cells else "")

    def _stop(self, left: int) -> None:
        if running := self._engine.running():
            log.warning("%s", stopping_text(running, "worker", self._work.resume))
        try:
            self._engine.stop()
        finally:  # also at a second Ctrl-C
            for ended in self._engine.ended():
                self._note_end_of(ended)

    def _settle(self, cells: Sequence[Cell]) -> list[Failure]:
        """Record as interrupted what dead workers left behind; the cells that nobody will finish."""
        lost, unbegun = list[Failure](), 0
        for cell in cells:
            if status_of(cell.folder, cell.round) or self._watch.is_held(cell.folder):
                continue
            record_interrupt(cell.folder)
            if claim := read_claim(cell.folder):
                reason = read_end(self._folder, claim.worker) or "it ended without a word"
                lost.append(Failure(str(cell.folder), f"lost with {claim.title}: {reason}", False))
            elif (cell.folder / "run.json").is_file():
                lost.append(Failure(str(cell.folder), "interrupted, and no worker went on with it", False))
            else:
                unbegun += 1
        if unbegun:
            why = f": {self._last_end}" if self._last_end else ""
            place = self._folder / FOLDER
            lost.append(
                Failure(str(self._folder), f"{unbegun} of {len(cells)} cells never began{why} (see {place})", False)
            )
        return lost
