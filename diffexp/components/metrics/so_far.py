"""How values of metrics are computed: while a run goes on without intervals, which take long, and without warnings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_SO_FAR = ContextVar("so far", default=False)
_FEW_ON_PURPOSE = ContextVar("few on purpose", default=False)


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


@contextmanager
def few_on_purpose() -> Iterator[None]:
    """Compute values of fewer samples than one would like, because they are enough for a comparison: no warnings."""
    token = _FEW_ON_PURPOSE.set(True)
    try:
        yield
    finally:
        _FEW_ON_PURPOSE.reset(token)


def is_few_on_purpose() -> bool:
    """Whether few samples are no reason for a warning."""
    return _FEW_ON_PURPOSE.get()
