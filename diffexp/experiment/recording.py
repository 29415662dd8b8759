"""The end of a run: its status, error and time in ``run.json`` and in its tracker."""

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from diffexp.catalog.discover import Catalog
from diffexp.errors import InputError, one_line
from diffexp.experiment.folder import RunFolder
from diffexp.experiment.live import Live

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk that takes no more, and of the limits that administrators set."""


@dataclass
class Recording:
    """Values that the end of a run is recorded with, filled in by the run."""

    live: Live | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    status: str = "done"
    """Of a run that ends without an error."""


@contextmanager
def recording(output: RunFolder, catalog: Catalog, clock: Callable[[], float]) -> Iterator[Recording]:
    """Record the end of the block and its seconds: ``done``, or ``Recording.status``, ``interrupted`` or ``failed``.

    An interrupt is a KeyboardInterrupt.

    Raises:
        RuntimeError: the block called ``sys.exit``, which is a failure whatever the code.
    """
    began, filled = clock(), Recording()

    def end(status: str, error: str | None = None) -> None:
        output.free_reserve()
        output.update(status=status, error=error, seconds=clock() - began)

    def end_early(status: str, error: str | None = None) -> None:
        try:
            end(status, error)
        except OSError as problem:  # the cause is about to be raised
            log.warning("the end of the run could not be recorded: %s", problem.strerror)
        finally:
            finish(status)

    def finish(status: str) -> None:
        if filled.live:
            filled.live.finish(filled.metrics, status)

    try:
        yield filled
        end(filled.status)
    except KeyboardInterrupt:
        end_early("interrupted")
        raise
    except SystemExit as error:
        failure = RuntimeError(f"sys.exit({error.code!r}) was called")
        end_early("failed", _describe(failure.with_traceback(error.__traceback__), catalog, output))
        raise failure from error
    except BaseException as error:
        end_early("failed", _describe(error, catalog, output))
        raise
    if filled.status == "done":
        output.delete_unfinished()
    finish(filled.status)


def _describe(error: BaseException, catalog: Catalog, output: RunFolder) -> str:
    """One line; the place in a plugin that raised the error, and what to do about a full disk, become its notes."""
    place = None if isinstance(error, InputError) else catalog.place_of(error)
    full = isinstance(error, OSError) and error.errno in FULL
    whole = output.folder.parent if output.is_cell else output.folder
    advice = f"make room, then go on with resume={whole}" if full else None
    for note in filter(None, (place, advice)):
        if note not in getattr(error, "__notes__", ()):  # an error may be that of several cells
            error.add_note(note)
    return one_line(error)
