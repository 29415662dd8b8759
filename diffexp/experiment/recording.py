"""The end of a run: its status, error and time in ``run.json`` and in its tracker."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from diffexp.catalog.discover import Catalog
from diffexp.components.trackers.base import Guarded
from diffexp.errors import InputError, one_line
from diffexp.experiment.folder import RunFolder


@dataclass
class Recording:
    """Values that the end of a run is recorded with, filled in by the run."""

    tracker: Guarded | None = None
    metrics: dict[str, float] = field(default_factory=dict)


@contextmanager
def recording(output: RunFolder, catalog: Catalog, clock: Callable[[], float]) -> Iterator[Recording]:
    """Record the end of the block, ``done``, ``interrupted`` (by KeyboardInterrupt) or ``failed``, and its seconds."""
    began, filled = clock(), Recording()

    def end(status: str, error: str | None = None) -> None:
        output.update(status=status, error=error, seconds=clock() - began)
        if status == "done":
            output.delete_raw()
        if filled.tracker:
            filled.tracker.finish(filled.metrics, status)

    try:
        yield filled
        end("done")
    except KeyboardInterrupt:
        end("interrupted")
        raise
    except BaseException as error:
        end("failed", _describe(error, catalog))
        raise


def _describe(error: BaseException, catalog: Catalog) -> str:
    """One line; if a plugin raised the error, a note with file and line is added to it."""
    place = None if isinstance(error, InputError) else catalog.place_of(error)
    if place and place not in getattr(error, "__notes__", ()):  # an error may be that of several cells
        error.add_note(place)
    return one_line(error)
