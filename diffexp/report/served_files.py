"""The files of a folder that a server may send: those of runs and sweeps, none outside the folder, none hidden."""

import os
import stat
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

SHOWN = frozenset({".hydra"})
"""Names that begin with a dot and are shown nevertheless."""
UNUSABLE = frozenset(map(chr, (*range(32), 127))) | {"\\"}
"""Characters that no name in a request may have: a backslash separates names on some systems."""
WALKS = {os.open, os.stat} <= os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
"""Whether files can be opened name by name, so that a link that appears meanwhile is not followed."""


class MalformedTarget(ValueError):
    """A request for something that cannot be a file."""


def names_of(target: str) -> tuple[str, ...]:
    """The names in the target of a request, decoded: ``/0_ddim/samples/?x`` gives ``("0_ddim", "samples")``.

    Raises:
        MalformedTarget: it is no absolute path, or has ``.`` or ``..``, an empty name, or a character that names lack.
    """
    path = target.partition("#")[0].partition("?")[0]
    try:
        text = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedTarget("not UTF-8") from error
    unusable = UNUSABLE | {":"} if os.name == "nt" else UNUSABLE
    if not text.startswith("/") or not path.isascii() or unusable.intersection(text):
        raise MalformedTarget("no path")
    names = text[1:].removesuffix("/").split("/")
    if names == [""] and len(text) <= 1:
        return ()
    if any(name in ("", ".", "..") for name in names):
        raise MalformedTarget("no plain path")
    return tuple(names)


class ServedFolder:
    """A folder that is read through a server.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def find(self, names: Sequence[str]) -> Path | None:
        """The file or folder of these names, links resolved; None if there is none that may be sent.

        Files may be sent of runs, of folders that hold runs, as those of sweeps, and of the root; folders are shown if
        they are those of runs or inside.
        """
        try:
            place = self.root.joinpath(*names).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):  # missing, a loop of links, a name that is too long
            return None
        if not place.is_relative_to(self.root):
            return None
        if any(name.startswith(".") and name not in SHOWN for name in (*names, *self._names(place))):
            return None
        if self._is_in_run(place):
            return place
        folder = place.parent
        is_file = place.is_file() and folder.is_relative_to(self.root)
        return place if is_file and (folder == self.root or _holds_runs(folder)) else None

    def open(self, place: Path) -> BinaryIO | None:
        """Open a file that was found; None if it is none by now, or cannot be read."""
        try:
            handle = self._open(place)
        except OSError:
            return None
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return os.fdopen(handle, "rb")
        os.close(handle)
        return None

    def entries(self, place: Path, most: int) -> tuple[list[os.DirEntry[str]], bool]:
        """The first entries of a folder that was found, folders first, and whether there are more.

        What may not be sent is left out.
        """
        try:
            with os.scandir(place) as found:
                entries = sorted(found, key=lambda entry: (not entry.is_dir(follow_symlinks=False), entry.name))
        except OSError:
            return [], False
        shown = (entry for entry in entries if self.find((*self._names(place), entry.name)))
        first = list(islice(shown, most + 1))
        return first[:most], len(first) > most

    def _names(self, place: Path) -> tuple[str, ...]:
        return place.relative_to(self.root).parts

    def _is_in_run(self, place: Path) -> bool:
        inside = [place, *place.parents][: len(self._names(place)) + 1]
        return any(is_run_folder(folder) for folder in inside)

    def _open(self, place: Path) -> int:
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        flags |= getattr(os, "O_NONBLOCK", 0)  # a named pipe without a writer
        if not WALKS:
            return os.open(place, flags)
        handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        names = self._names(place)
        for number, name in enumerate(names):
            more = os.O_DIRECTORY if number < len(names) - 1 else 0
            try:
                inner = os.open(name, flags | os.O_NOFOLLOW | more, dir_fd=handle)
            finally:
                os.close(handle)
            handle = inner
        return handle


def is_run_folder(folder: Path) -> bool:
    """Whether a folder looks like that of a run."""
    return (folder / "run.json").is_file() or (folder / ".hydra").is_dir()


def _holds_runs(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(entry.is_dir() and is_run_folder(Path(entry)) for entry in entries)
    except OSError:
        return False
