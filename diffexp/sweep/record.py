"""``sweep.json``: what a sweep must know to be finished another day."""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from diffexp.errors import InputError
from diffexp.files import read_json, write_json
from diffexp.resume import check_same_samples, read_earlier
from diffexp.sweep.jobs import Job

NAME = "sweep.json"
LAUNCHER = re.compile(r"hydra[/.]launcher[=.]")


@dataclass(frozen=True)
class SweepRecord:
    """A sweep as it was started."""

    overrides: list[str]
    """Of the command line."""
    cells: list[list[str]] | None
    """The overrides of every cell; None where a sweeper decides them as it goes."""
    config_dir: str | None = None
    attempts: int = 1
    """How many times it was started, this time included."""

    @property
    def command(self) -> str:
        return shlex.join(["python", "-m", "diffexp", "-m", *self.overrides])

    def write(self, folder: Path) -> None:
        write_json(folder / NAME, asdict(self) | {"command": self.command})


def read_sweep(folder: Path) -> SweepRecord | None:
    """The record in a folder; None where there is none."""
    found = read_json(folder / NAME)
    fields = {key: found[key] for key in SweepRecord.__dataclass_fields__ if key in found}
    return SweepRecord(**fields) if found else None


@dataclass(frozen=True)
class Resumed:
    """A sweep that a command line asks to finish."""

    folder: Path
    record: SweepRecord
    """Of the new attempt."""

    def check_cells(self, cells: Sequence[Sequence[str]] | None, compose: Callable[[int, Sequence[str]], Job]) -> None:
        """What has begun must not have changed, be it on the command line or in the files that it names.

        Raises:
            InputError: the first difference.
        """
        if self.record.cells is None:
            raise InputError(
                f"resume={self.folder}: its sweeper chose the cells as it went; a search goes on from its storage"
            )
        for number, (before, now) in enumerate(zip(self.record.cells, cells or [])):
            if list(before) != list(now):
                raise InputError(
                    f"resume={self.folder}: cell {number} was {' '.join(before)} and is now {' '.join(now)}"
                )
        if len(self.record.cells) != len(cells or []):
            raise InputError(
                f"resume={self.folder}: it had {len(self.record.cells)} cells and has now {len(cells or [])}"
            )
        for number, words in enumerate(self.record.cells):
            cell = compose(number, words)
            earlier = read_earlier(cell.folder)
            if earlier:
                check_same_samples(earlier, {"config": cell.config})


def resumed_sweep(overrides: Sequence[str]) -> Resumed | None:
    """The sweep that ``resume=<folder>`` among the words names; None if there is no such word, or it names a run.

    Raises:
        InputError: something else is asked as well.
    """
    named = [match[1].strip("'\"") for text in overrides if (match := re.fullmatch(r"resume=(.+)", text))]
    folder = Path(named[-1]).expanduser().absolute() if named else None
    found = read_sweep(folder) if folder else None
    if folder is None or found is None:
        return None
    more = [text for text in overrides if not text.startswith("resume=")]
    for text in more:
        if not LAUNCHER.match(text):
            raise InputError(f"resume={named[-1]} finishes the sweep as it was started; leave {text} out")
    kept = [text for text in found.overrides if not (more and LAUNCHER.match(text))]
    return Resumed(folder, replace(found, overrides=[*kept, *more], attempts=found.attempts + 1))


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The sweep is this process's own until the block ends, where the file system can tell.

    Raises:
        InputError: another process has it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"the sweep in {folder} is still running") from error
        except OSError:
            pass
        yield
