"""Cells that draw the very same samples: the first draws them, the others take them over."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffexp.components.loops.base import FROM_NOISE

ONLY_NAMED = ("resume", "objective", "name", "tags", "notes", "tracker")
"""Keys that no file of a run depends on but its record."""
IN_THE_PLAN = ("scheduler", "grid", "steps", "max_nfe")


def samples_key(record: Mapping[str, Any]) -> str:
    """What decides all that a run with this ``run.json`` draws and measures, as text.

    A plan says all about scheduler, grid and steps, unless the loop makes other plans of these.
    """
    by_plan = record["plan_sha256"] and record["config"]["loop"]["name"] in FROM_NOISE
    left_out = (*ONLY_NAMED, *(IN_THE_PLAN if by_plan else ()))
    config = {key: value for key, value in record["config"].items() if key not in left_out}
    facts = [record[key] for key in ("plan_sha256", "weights_sha256", "device", "dtype")]
    return json.dumps([config, *facts], default=str)


class Twins:
    """Who draws what; asked by many threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._drawing: set[str] = set()
        self._done: dict[str, Path] = {}

    def add(self, key: str, folder: Path) -> None:
        """A run of an earlier day that is done."""
        with self._changed:
            self._done.setdefault(key, folder)

    def drawing(self, key: str) -> bool:
        """Whether someone draws these samples right now."""
        with self._changed:
            return key in self._drawing

    def claim(self, key: str) -> Path | None:
        """The folder of a run that has drawn these samples, or None: they are the caller's to draw.

        Waits while another draws them. Whoever got None calls ``settle`` in the end.
        """
        with self._changed:
            self._changed.wait_for(lambda: key not in self._drawing)
            if key in self._done:
                return self._done[key]
            self._drawing.add(key)
            return None

    def settle(self, key: str, folder: Path | None) -> None:
        """The samples are in ``folder``, or could not be drawn."""
        with self._changed:
            self._drawing.discard(key)
            if folder:
                self._done[key] = folder
            self._changed.notify_all()
