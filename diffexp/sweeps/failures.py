"""Failures of cells: each costs itself alone, and is reported at the end of the sweep, across processes by a file."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from diffexp.errors import InputError, one_line
from diffexp.files import write_json

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
        if not (folder / "run.json").exists():  # it failed before the experiment began
            write_json(folder / "run.json", {"status": "failed", "error": failure.message})
    except OSError as problem:
        TRACEBACKS.error("the failure could not be recorded", exc_info=problem)
    return failure


def clear_failure(folder: Path) -> None:
    """Delete the failure record of an earlier attempt."""
    (folder / FILE).unlink(missing_ok=True)


def read_failures(sweep: Path, known: Sequence[Failure] = ()) -> list[Failure]:
    """All failures of a sweep's cells, sorted by folder.

    Args:
        known: failures of this process, whose folders may not have been able to take a record.
    """
    found = {failure.folder: failure for failure in known}
    for file in sweep.glob(f"*/{FILE}"):
        failure = Failure(**json.loads(file.read_text(encoding="utf-8")))
        found[failure.folder] = failure
    return [found[folder] for folder in sorted(found)]
