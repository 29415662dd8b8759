"""``outputs/latest``: a link to the folder of the last run or sweep."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from diffexp.sweeps.results import LATEST

OUTPUTS = "outputs"


def link_latest(folder: Path) -> None:
    """Let ``outputs/latest`` in the working folder point to ``folder``, in one step.

    It is a relative link, so that the tree can be moved. Without effect where a run is elsewhere and there is no
    ``outputs``, where something other than a link has that name, and on systems or disks without links.
    """
    link, place = Path(OUTPUTS, LATEST).absolute(), folder.resolve()
    there = link.parent.is_dir() or place.is_relative_to(link.parent)
    if not there or (link.exists() and not link.is_symlink()):
        return
    temporary = link.with_name(f".{LATEST}-{secrets.token_hex(4)}")
    with suppress(OSError, NotImplementedError, ValueError):  # ValueError: on another drive of Windows
        link.parent.mkdir(exist_ok=True)
        temporary.symlink_to(os.path.relpath(place, link.parent.resolve()), target_is_directory=True)
        try:
            temporary.replace(link)
        finally:
            temporary.unlink(missing_ok=True)


def real_folder(text: str) -> Path:
    """The absolute folder that somebody names; of a link the one it points to, as ``latest`` may soon be another."""
    folder = Path(text).expanduser().absolute()
    return folder.resolve() if folder.is_symlink() else folder
