"""Parts of a run: ranges of its samples that several processes draw, each claimed by a lock on the shared disk.

The owner of a run, the process that holds the lock of its folder, writes how the samples are divided. Every process
then draws the parts that it can claim. The record of a part is written after each of its batches, so that whoever
claims the part of a dead process draws only what is missing. Parts consist of whole batches: a batch holds the same
samples as in a run by one process.
"""

import os
import secrets
import shutil
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from diffexp.errors import InputError
from diffexp.experiment.lock import FolderInUse, Watch, lock
from diffexp.experiment.tally import Tally
from diffexp.files import read_json, write_json

if TYPE_CHECKING:
    import torch

FOLDER = ".parts"
DIVISION = "division.json"
MANY = 64
"""Parts of a long run: enough that no worker waits long for the last ones."""
MOST_SAMPLES = 1024
"""In a part, as long as that is a batch or more."""


@dataclass(frozen=True)
class Worker:
    """A process that draws samples."""

    host: str
    pid: int
    device: str
    job: str | None
    """Its name in the system that started it, such as a SLURM job; None without one."""

    @classmethod
    def of_process(cls, device: "torch.device", job: str | None) -> Self:
        """This process, which draws on ``device``."""
        return cls(socket.gethostname(), os.getpid(), str(device), job)


@dataclass(frozen=True)
class Share:
    """What one worker drew of a part."""

    worker: Worker
    tally: Tally
    peak_memory_mb: float | None
    drew_noise: bool
    """Whether the samples depend on the seed, as far as is known."""
    broken: Sequence[int] = ()
    """Indices of samples that are not finite."""

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """The share that a record of a part contains."""
        tally = Tally(**{**found["tally"], "passes": float(found["tally"]["passes"])})  # NaN is text in JSON
        return cls(**{**found, "worker": Worker(**found["worker"]), "tally": tally})


@dataclass(frozen=True)
class Division:
    """How the samples of a run are divided into parts."""

    num_samples: int
    batch_size: int
    part_size: int
    """Samples of a part; a multiple of ``batch_size``."""
    raw: bool
    """Whether samples are stored as numbers too, for metrics that read more of them than their images."""
    before: Tally
    """Sampling before the run was divided."""
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    """Different for every division, so that nobody goes on drawing for one that is gone."""

    @classmethod
    def of(cls, num_samples: int, batch_size: int, raw: bool, before: Tally) -> Self:
        """Divide a run into about ``MANY`` parts, fewer where it has fewer batches."""
        batches = -(-num_samples // batch_size)
        most = max(1, MOST_SAMPLES // batch_size)
        return cls(num_samples, batch_size, batch_size * min(max(1, batches // MANY), most), raw, before)

    @property
    def count(self) -> int:
        """The number of parts."""
        return -(-self.num_samples // self.part_size)

    def indices(self, part: int) -> range:
        """The samples of a part."""
        return range(part * self.part_size, min((part + 1) * self.part_size, self.num_samples))

    def batches(self, part: int) -> int:
        """The number of batches in a part."""
        return -(-len(self.indices(part)) // self.batch_size)


def read_division(folder: Path) -> Division | None:
    """How the run in a folder is divided; None where it is not."""
    found = read_json(folder / FOLDER / DIVISION)
    try:
        before = Tally(**{**found["before"], "passes": float(found["before"]["passes"])})
        return Division(**{**found, "before": before})
    except (KeyError, TypeError):
        return None


def has_open_parts(folder: Path, watch: Watch) -> bool:
    """Whether the run in a folder has parts that nobody draws."""
    division = read_division(folder)
    if division is None:
        return False
    names = (f"{division.indices(part).start:06d}" for part in range(division.count))
    paths = (folder / FOLDER / name for name in names)
    return any(not _is_done(path) and not watch.is_held(path) for path in paths)


def remove_parts(folder: Path) -> None:
    """Remove what is known of the parts of a run, which is finished or begins anew.

    Raises:
        FolderInUse: another process draws one of them.
    """
    for claim in sorted((folder / FOLDER).glob("*/.lock")):
        with lock(claim.parent):
            pass
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


class Parts:
    """The parts of one run, for one worker.

    Args:
        folder: of the run.
        division: as in the folder; ``offer`` writes it there.
        worker: this process.
    """

    def __init__(self, folder: Path, division: Division, worker: Worker) -> None:
        self.division = division
        self.worker = worker
        self._run = folder
        self._folder = folder / FOLDER
        self._done: dict[int, list[Share]] = {}
        self._watch = Watch()

    def offer(self) -> None:
        """Let other processes draw parts too. Parts of another division are forgotten, their samples are not."""
        if not self.is_offered:
            remove_parts(self._run)
            write_json(self._folder / DIVISION, asdict(self.division))

    @property
    def is_offered(self) -> bool:
        """Whether the run is still divided like this: not finished, and not begun anew."""
        return read_json(self._folder / DIVISION).get("token") == self.division.token

    def claimed(self, first: int = 0) -> Generator[int]:
        """Claim one part after another, held until the next is requested; ends when no open part is free.

        Args:
            first: the part to begin with.
        """
        parts = range(self.division.count)
        found = True
        while found:
            found = False
            for part in (*parts[first:], *parts[:first]):
                with self._claim(part) as claimed:
                    if claimed:
                        found = True
                        yield part

    @contextmanager
    def _claim(self, part: int) -> Iterator[bool]:
        """Claim a part until the end of the block; yields whether it is open and free."""
        with ExitStack() as stack:
            claimed = False
            if not self.is_done(part) and not self._watch.is_held(self._path(part)):
                with suppress(FolderInUse):
                    claimed = self._lock(part, stack)
            yield claimed
        if not self.is_offered:  # by the lock it came into being again
            with suppress(OSError):
                self._path(part).rmdir()
                self._folder.rmdir()

    def _lock(self, part: int, stack: ExitStack) -> bool:
        """Lock a part; returns whether it is still to be drawn."""
        try:
            stack.enter_context(lock(self._path(part)))
        except FolderInUse:
            raise
        except InputError:
            if self.is_offered:  # else its folder has just been removed
                raise
        return self.is_offered and not self.is_done(part)

    def is_done(self, part: int) -> bool:
        """Whether all samples of a part have been drawn."""
        if part not in self._done:
            found = _read(self._path(part))
            if not found.get("done"):
                return False
            self._done[part] = _shares(found)
        return True

    def shares(self, part: int) -> list[Share]:
        """What workers have drawn of a part so far."""
        return self._done[part] if part in self._done else _shares(_read(self._path(part)))

    def write(self, part: int, shares: Sequence[Share], *, done: bool) -> None:
        """Write the record of a part."""
        write_json(_record_of(self._path(part)), {"done": done, "shares": [asdict(share) for share in shares]})

    def reopen(self, part: int) -> None:
        """Let a part be drawn again of which samples are missing."""
        self.write(part, self.shares(part), done=False)
        self._done.pop(part, None)

    @property
    def all_shares(self) -> list[Share]:
        """What workers have drawn so far."""
        return [share for part in range(self.division.count) for share in self.shares(part)]

    @property
    def batches_left(self) -> int:
        """The number of batches of the parts that are not done, as far as this worker knows."""
        return sum(self.division.batches(part) for part in range(self.division.count) if part not in self._done)

    def _path(self, part: int) -> Path:
        return self._folder / f"{self.division.indices(part).start:06d}"


def _record_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _read(path: Path) -> dict[str, Any]:
    """The record of the part whose lock has this path; empty where it has none."""
    return read_json(_record_of(path))


def _is_done(path: Path) -> bool:
    return bool(_read(path).get("done"))


def _shares(record: Mapping[str, Any]) -> list[Share]:
    return [Share.of(found) for found in record.get("shares", ())]


def sum_of(shares: Sequence[Share]) -> Tally:
    """What all the sampling of some shares took."""
    return sum((share.tally for share in shares), Tally())


def workers_of(shares: Sequence[Share]) -> list[dict[str, Any]]:
    """The entry ``workers`` of ``run.json``: every process with the number of its samples and their seconds."""
    found: dict[Worker, list[Share]] = {}
    for share in shares:
        found.setdefault(share.worker, []).append(share)
    return [
        {
            **asdict(worker),
            "samples": (tally := sum_of(own)).drawn,
            "seconds": tally.seconds,
            "peak_memory_mb": max((peak for share in own if (peak := share.peak_memory_mb)), default=None),
        }
        for worker, own in found.items()
    ]
