"""Where a runner gets its cells from: a list, or the folder of a sweep that other workers share (``claims``)."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from diffexp.catalog.discover import Catalog
from diffexp.experiment.lock import lock
from diffexp.sweeps.cell import Cell, model_key
from diffexp.sweeps.failures import clear_failure


class Elsewhere(Exception):
    """Another worker runs a cell, or has run it."""


class Source(Protocol):
    """Hands out cells; all methods but ``claim`` are called by the main thread of a process."""

    def next_model(self, loaded: str) -> str | None:
        """The ``model_key`` of the cells to run next: ``loaded``, if there are any of it; None at the end.

        A source whose cells are those of other workers too waits here for what they leave.
        """
        ...

    def cells_of(self, model: str) -> Sequence[Cell]:
        """All cells of a model, whoever runs them."""
        ...

    def take(self, model: str, alone: bool) -> Cell | None:
        """The next cell of a model; None if there is none at the moment.

        Args:
            alone: whether it is one of the cells that run by themselves, see ``runs_alone``.
        """
        ...

    def claim(self, cell: Cell) -> AbstractContextManager[None]:
        """Hold the lock of a cell that was taken, in the thread that runs it.

        Raises:
            Elsewhere: another worker was faster.
        """
        ...

    def ended(self, cell: Cell, status: str) -> None:
        """Note how a cell that was taken has ended: ``done``, ``failed``, ``interrupted`` or ``elsewhere``."""
        ...


def runs_alone(cell: Cell, catalog: Catalog) -> bool:
    """Whether a cell does more with its model than to call it: a black-box loop, or networks that are offloaded."""
    entry = catalog.entries.get(("loop", cell.config["loop"].get("name")))
    return bool(entry and entry.traits.get("alone")) or cell.config["model"].get("offload", "none") != "none"


class CellList:
    """Cells that this process alone runs, in the order of their models."""

    def __init__(self, cells: Sequence[Cell], catalog: Catalog) -> None:
        self._cells: dict[str, list[Cell]] = {}
        self._waiting: dict[tuple[str, bool], deque[Cell]] = {}
        for cell in cells:
            model = model_key(cell.config)
            self._cells.setdefault(model, []).append(cell)
            self._waiting.setdefault((model, runs_alone(cell, catalog)), deque()).append(cell)

    def next_model(self, loaded: str) -> str | None:
        waiting = {model for (model, _), cells in self._waiting.items() if cells}
        return next((model for model in (loaded, *self._cells) if model in waiting), None)

    def cells_of(self, model: str) -> Sequence[Cell]:
        return self._cells[model]

    def take(self, model: str, alone: bool) -> Cell | None:
        waiting = self._waiting.get((model, alone))
        return waiting.popleft() if waiting else None

    @contextmanager
    def claim(self, cell: Cell) -> Iterator[None]:
        with lock(cell.folder):
            clear_failure(cell.folder)
            yield

    def ended(self, cell: Cell, status: str) -> None:
        """Do nothing: a cell that has ended is not run again."""
