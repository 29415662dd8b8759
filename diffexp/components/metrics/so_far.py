"""Values of metrics while a run goes on: without intervals, whose halves of samples take long, and without warnings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_SO_FAR = ContextVar("so far", default=False)


@contextmanager
def values_so_far() -> Iterator[None]:
    """Compute values of samples of which there are more to come, until the block ends."""
    token = _SO_FAR.set(True)
    try:
        yield
    finally:
        _SO_FAR.reset(token)


def is_so_far() -> bool:
    """Whether values are computed of samples of which there are more to come."""
    return _SO_FAR.get()
