"""Each cell of a batched sweep writes its own diffexp.log, though all of them live in one process."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

FULL = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"

_own: ContextVar[logging.Handler | None] = ContextVar("own", default=None)
"""Where the lines of the cell at hand go; each thread has a context of its own."""


class _CellFiles(logging.Handler):
    """Hands a record to the file of the cell whose thread it comes from."""

    def emit(self, record: logging.LogRecord) -> None:
        own = _own.get()
        if own:
            own.handle(record)


class _CellFile(logging.FileHandler):
    """A cell's diffexp.log; lines that it cannot take, on a full disk say, are lost, and nothing else is."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class _Terminal(logging.StreamHandler):
    """What diffexp says of the sweep, and what goes wrong in its cells, above the line that shows the progress."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] != "diffexp":
            return False
        if _own.get() is None:
            return bool(super().filter(record))
        text = record.getMessage()  # what many cells say is told once
        new = record.levelno >= logging.WARNING and text not in self._told
        self._told.add(text)
        return new and bool(super().filter(record))

    def format(self, record: logging.LogRecord) -> str:
        own = _own.get()
        return f"{own.name}: {super().format(record)}" if own else super().format(record)

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


@contextmanager
def sweep_logging() -> Iterator[None]:
    """What goes on in threads is logged by cell until the block ends."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, [_Terminal(sys.stdout), _CellFiles()]
    try:
        yield
    finally:
        root.handlers = before


@contextmanager
def cell_logging(folder: Path) -> Iterator[None]:
    """What this thread logs goes to the cell's diffexp.log."""
    handler = _CellFile(folder / "diffexp.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter(FULL))
    handler.name = folder.name
    token = _own.set(handler)
    try:
        yield
    finally:
        _own.reset(token)
        handler.close()
