"""A diffexp.log for each cell of a batched sweep, although all of them live in one process."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

LOG_FORMAT = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"

_cell_file: ContextVar[logging.Handler | None] = ContextVar("cell_file", default=None)
"""The log file of the cell that runs in this thread; each thread has a context of its own."""


class _CellFiles(logging.Handler):
    """Writes a record to the file of the cell in whose thread it was logged."""

    def emit(self, record: logging.LogRecord) -> None:
        file = _cell_file.get()
        if file:
            file.handle(record)


class LogFile(logging.FileHandler):
    """A diffexp.log; lines that cannot be written, as on a full disk, are lost without an error."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class _Terminal(logging.StreamHandler):
    """Messages about the sweep and warnings of its cells, printed above the progress line."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._printed: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] != "diffexp":
            return False
        if _cell_file.get() is None:
            return bool(super().filter(record))
        text = record.getMessage()  # a warning of many cells is printed once
        new = record.levelno >= logging.WARNING and text not in self._printed
        self._printed.add(text)
        return new and bool(super().filter(record))

    def format(self, record: logging.LogRecord) -> str:
        file = _cell_file.get()
        return f"{file.name}: {super().format(record)}" if file else super().format(record)

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


class Warnings(logging.Handler):
    """Collects the warnings of a process: each text, once, with the name of the first cell that had it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        file = _cell_file.get()
        self.found.setdefault(record.getMessage(), file.name or "" if file else "")


@contextmanager
def sweep_logging() -> Iterator[None]:
    """Log the messages of each thread to the file of its cell until the block ends."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, [_Terminal(sys.stdout), _CellFiles()]
    try:
        yield
    finally:
        root.handlers = before


@contextmanager
def cell_logging(folder: Path) -> Iterator[None]:
    """Log the messages of this thread to the cell's diffexp.log."""
    handler = LogFile(folder / "diffexp.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    handler.name = folder.name
    token = _cell_file.set(handler)
    try:
        yield
    finally:
        _cell_file.reset(token)
        handler.close()
