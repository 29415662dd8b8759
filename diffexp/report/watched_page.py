"""The pages of a folder that is served: of its runs, made anew when these change, and of the files of a run."""

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from diffexp.report.assets import asset
from diffexp.report.collect import runs_in
from diffexp.report.live_report import LiveReport, RunCache, with_waiting
from diffexp.report.page import page_html, template
from diffexp.report.progress_state import State, state_of
from diffexp.sweeps.results import CellResult

PAGE = "report.html"
CHECK_SECONDS, REST = 1.0, 4.0
"""How often the folder is read, at most, and how many times as long as that took nothing is done."""
MOST_ENTRIES, MOST_PICTURES = 2000, 100
"""Of a folder, the files that are listed and the images among them that are shown, at most."""


@dataclass(frozen=True)
class Page:
    """A page as it is sent."""

    content: bytes
    version: str


class WatchedPage:
    """The page of a folder, made anew when it is requested and runs have changed.

    Args:
        root: the folder, resolved.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._cache = RunCache()
        self._lock = threading.Lock()
        self._page = Page(b"", "")
        self._shown: object = None
        self._next = 0.0
        self._started = f"{time.time_ns():x}"
        self._number = 0

    def current(self) -> Page:
        """The page; others who ask while it is made get the last one, if there is one."""
        if self._lock.acquire(blocking=not self._page.content):
            try:
                began = time.monotonic()
                if began >= self._next:
                    self._update()
                    now = time.monotonic()
                    self._next = now + max(CHECK_SECONDS, REST * (now - began))
            finally:
                self._lock.release()
        return self._page

    def _update(self) -> None:
        cells = runs_in(self.root, self._cache.read)
        held = {folder for folder in {cell.folder.parent for cell in cells} if self._cache.is_held(folder)}
        cells = [one for cell in cells for one in (with_waiting([cell]) if cell.folder.parent in held else [cell])]
        shown = cells, [tuple(self._cache.images(cell.folder)) for cell in cells]
        if self._page.content and shown == self._shown:
            return
        self._shown = shown
        self._number += 1
        version = f"{self._started}-{self._number}"
        self._page = Page(self._html(cells, version).encode(), version)

    def _html(self, cells: Sequence[CellResult], version: str) -> str:
        state = state_of(cells, 2 * CHECK_SECONDS, version)
        if not cells:
            return _folder_page(title=self.root.name, report=Progress(state), note="No run has begun here yet.")
        return page_html(LiveReport(cells, self.root / PAGE, state, self._cache.images))


@dataclass(frozen=True)
class Progress:
    """What a page without runs shows of ``LiveReport``."""

    live: State | None


@dataclass(frozen=True)
class Entry:
    """A file or folder as it is listed."""

    name: str
    url: str
    size: str
    changed: str
    picture: bool


def listing(title: str, found: Sequence[os.DirEntry[str]], up: str, *, more: bool) -> str:
    """A page with the files of a folder.

    Args:
        up: URL of the page above.
        more: whether there are files besides those found.
    """
    entries, previewed = list[Entry](), 0
    for one in found:
        picture = one.name.endswith((".png", ".gif")) and previewed < MOST_PICTURES
        previewed += picture
        entries.append(_entry(one, picture=picture))
    note = f"The first {len(entries):,} are listed." if more else "" if entries else "Nothing to show here."
    return _folder_page(title=title, entries=entries, up=up, note=note)


def _entry(one: os.DirEntry[str], *, picture: bool) -> Entry:
    end = "/" if one.is_dir() else ""
    size, changed = "", ""
    with suppress(OSError):
        state = one.stat()
        size = "" if end else f"{state.st_size:,}"
        changed = datetime.fromtimestamp(state.st_mtime).strftime("%Y-%m-%d %H:%M:%S")
    name = one.name.encode("utf-8", "replace").decode()
    return Entry(name + end, "./" + quote(os.fsencode(one.name)) + end, size, changed, picture)


def _folder_page(**content: Any) -> str:
    known: dict[str, Any] = {"report": Progress(None), "entries": (), "up": "", "note": ""}
    return template("folder.html.j2").render(
        styles=[asset(f"{name}.css") for name in ("chart", "report", "live")],
        scripts=[asset(f"{name}.js") for name in ("base", "live")],
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **(known | content),
    )
