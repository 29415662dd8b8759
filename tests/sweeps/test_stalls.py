"""Cells that hold up a sweep: they are named, and nobody waits for them for ever."""

import gc
import logging
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from diffexp.components.models.base import Request, Runtime
from diffexp.components.models.mixture import mixture
from diffexp.experiment.folder import RunFolder
from diffexp.sweeps.batch_size import BatchLimit
from diffexp.sweeps.context import SharedResources
from diffexp.sweeps.duplicates import DuplicateRuns
from diffexp.sweeps.ending import Ending
from tests.runs import PICTURES, network, record

SECONDS = 0.5
NAMED = f"no answer for {SECONDS} s from 1"
STOPPED = f"{NAMED}; a second Ctrl-C ends the sweep without"


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """What the sweep logs, whose handlers are its own."""
    found: list[str] = []
    handler, logger = logging.Handler(), logging.getLogger("diffexp.sweeps")
    handler.emit = lambda record: found.append(record.getMessage())
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch, messages: list[str]) -> Iterator[Any]:
    """Let cell 1 hang in a method until a message has been logged; returns whether it hangs already."""
    released, begun = threading.Event(), threading.Event()

    def hang(owner: type, name: str, message: str) -> threading.Event:
        method = getattr(owner, name)

        def hanging(self: RunFolder, *rest: Any) -> Any:
            if self.folder.name == "1":
                begun.set()
                released.wait(60)
            return method(self, *rest)

        def release() -> None:
            deadline = time.monotonic() + 60
            while message not in messages and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(SECONDS)  # for those that wait for it
            released.set()

        monkeypatch.setattr(owner, name, hanging)
        threading.Thread(target=release).start()
        return begun

    yield hang
    released.set()


CELLS = [(*PICTURES, f"seed={seed}", f"steps={2 if seed == 1 else 200}") for seed in range(3)]


def test_a_cell_that_holds_the_others_up_is_named(together, hang, messages):
    hang(RunFolder, "save_grid", NAMED)
    folders = together(*CELLS, patience_seconds=SECONDS)
    assert NAMED in messages
    assert [record(folder)["status"] for folder in folders] == ["done"] * 3


@pytest.mark.parametrize("method", ["save_samples", "save_metrics"])
def test_after_ctrl_c_a_cell_that_hangs_is_named_and_the_others_end(
    together, hang, messages, tmp_path, monkeypatch, method
):
    """Also those that wait for the processor, which it does not give back."""
    begun = hang(RunFolder, method, STOPPED)

    def interrupt(number: int, size: int) -> None:
        if begun.is_set():
            raise KeyboardInterrupt

    network(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        together(*CELLS, patience_seconds=SECONDS, resume="resume=here")
    assert "go on later with: python -m diffexp resume=here" in "".join(messages)
    assert STOPPED in messages
    others = [path.parent for path in sorted(tmp_path.glob("sweep/[02]/run.json"))]
    assert [(cell.name, record(cell)["status"]) for cell in others][:1] == [("0", "interrupted")]
    assert {record(cell)["status"] for cell in others} == {"interrupted"}


def test_a_model_is_freed_with_the_cells_that_share_it():
    shared = SharedResources(BatchLimit(4), 1.0, DuplicateRuns(), Ending())
    model = shared.loaded.get(lambda: mixture(Runtime()))
    alive = weakref.ref(model)
    assert shared.loaded.predict
    assert model.conditions(Request(), range(1))
    gc.disable()
    try:
        del model, shared
        assert alive() is None
    finally:
        gc.enable()
