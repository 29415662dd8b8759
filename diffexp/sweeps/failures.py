"""Failures of cells: each costs itself alone, and is reported at the end of the sweep, across processes by a file."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from diffexp.errors import InputError, one_line
from diffexp.experiment.lock import FolderInUse
from diffexp.files import read_json, write_json

FILE = ".hydra/failure.json"
TRACEBACKS = logging.getLogger("errors")
"""Not below "diffexp", whose messages are printed on the terminal: a traceback belongs in diffexp.log."""


@dataclass(frozen=True)
class Failure:
    """Failure of a run, in a form that crosses processes as a file."""

    folder: str
    message: str
    input_error: bool


def record_failure(folder: Path, error: BaseException) -> Failure:
    """Log the error of a run with its traceback, and write it to the run's folder where that is possible."""
    TRACEBACKS.error("the run failed", exc_info=error)
    failure = Failure(str(folder), one_line(error), isinstance(error, InputError))
    try:
        write_json(folder / FILE, asdict(failure))
        begun = (folder / "run.json").exists() or isinstance(error, FolderInUse)
        if not begun:
            write_json(folder / "run.json", {"status": "failed", "error": failure.message})
    except OSError as problem:
        TRACEBACKS.error("the failure could not be recorded", exc_info=problem)
    return failure


def record_interrupt(folder: Path) -> None:
    """Record that the run in a folder is interrupted, for one that hangs and cannot do so itself."""
    record = read_json(folder / "run.json")
    if record.get("status") == "running":
        with suppress(OSError):
            write_json(folder / "run.json", record | {"status": "interrupted"})


def record_loss(folder: Path, message: str) -> None:
    """Record that the run in a folder has failed, for one whose process is dead."""
    with suppress(OSError):
        write_json(folder / "run.json", read_json(folder / "run.json") | {"status": "failed", "error": message})


def clear_failure(folder: Path) -> None:
    """Delete the failure record of another attempt."""
    (folder / FILE).unlink(missing_ok=True)


def read_failure(folder: Path) -> Failure | None:
    """The failure of the run in a folder; None where it has not failed."""
    stated = read_json(folder / FILE)
    return Failure(**stated) if stated.keys() == Failure.__dataclass_fields__.keys() else None


def read_failures(sweep: Path, known: Sequence[Failure] = ()) -> list[Failure]:
    """All failures of a sweep's cells, sorted by folder.

    Args:
        known: failures of this process, whose folders may not have been able to take a record.
    """
    found = {failure.folder: failure for failure in known}
    for file in sweep.glob(f"*/{FILE}"):
        if failure := read_failure(file.parents[1]):
            found[failure.folder] = failure
    return [found[folder] for folder in sorted(found)]
