"""Cells whose samples are equal: the first generates them, the others copy its files."""

import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from diffexp.catalog.discover import Catalog, discover
from diffexp.experiment.configs import KEYS_OF_THE_RECORD
from diffexp.experiment.rounds import Round

FACTS = ("plan_sha256", "weights_sha256", "inputs_sha256", "code_sha256", "device", "dtype")
"""Entries of ``run.json`` that stand for code and files."""
KEYS_OF_THE_PLAN = ("scheduler", "grid", "steps", "max_nfe", "max_forward_passes")


def samples_key(record: Mapping[str, Any], catalog: Catalog) -> str:
    """Everything that determines the samples and metrics of the run with this ``run.json``, as text.

    The plan stands for scheduler, timestep schedule and steps, unless the loop builds other plans from these.
    """
    loop = catalog.find("loop", record["config"]["loop"]["name"])
    by_plan = record["plan_sha256"] and loop and loop.traits.get("solves_from_noise")
    skipped = (*KEYS_OF_THE_RECORD, *(KEYS_OF_THE_PLAN if by_plan else ()))
    config = {key: value for key, value in record["config"].items() if key not in skipped}
    now = Round.of(record)
    drawn = (now.samples, now.final) if now else None
    return json.dumps([config, drawn, *(record.get(key) for key in FACTS)], default=str)


class DuplicateRuns:
    """The runs of a sweep by ``samples_key``; used by many threads.

    The result of a run is its folder, or None where it has no complete samples.

    Args:
        catalog: everything that can be chosen; None: as it is now.
    """

    def __init__(self, catalog: Catalog | None = None) -> None:
        self._catalog = catalog or discover()
        self._lock = threading.Lock()
        self._first: dict[str, Future[Path | None]] = {}

    def key(self, record: Mapping[str, Any]) -> str:
        """The key of the run with this ``run.json``."""
        return samples_key(record, self._catalog)

    def claim(self, key: str, own: Future[Path | None]) -> Future[Path | None]:
        """The result of the run that generates the samples with this key: ``own``, or that of an earlier caller."""
        with self._lock:
            first = self._first.get(key)
            if first is None or (first.done() and first.result() is None):
                first = self._first[key] = own
            return first

    def add_finished(self, key: str, folder: Path) -> None:
        """Add a run of an earlier attempt at the sweep."""
        result = Future[Path | None]()
        result.set_result(folder)
        self.claim(key, result)
