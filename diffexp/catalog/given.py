"""Objects from Python in place of names, as in ``diffexp.run(model=pipeline)``: entries for the time of a call."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from diffexp.catalog.entry import Entry

PREFIX = "object-"
"""Beginning of the names of objects, which no config or plugin may choose."""

_entries: dict[tuple[str, str], Entry] = {}


@dataclass(frozen=True)
class GivenEntry(Entry):
    """An object under a name of its own, which ends with the call that it was given to."""

    thing: Callable[..., Any] = field(kw_only=True, repr=False, compare=False)
    """What a registered function would be: called with what diffexp passes and the options."""

    def load(self) -> Any:
        return self.thing


@contextmanager
def given(entries: Mapping[tuple[str, str], Entry]) -> Iterator[None]:
    """Let the catalog have these entries too, by kind and name, until the block ends."""
    before = dict(_entries)
    _entries.update(entries)
    try:
        yield
    finally:
        _entries.clear()
        _entries.update(before)


def given_entries() -> Mapping[tuple[str, str], Entry]:
    """The entries of the blocks that are open."""
    return _entries
