"""Going on with a run that did not finish: ``resume=<run folder>``, or a cell of ``resume=<sweep folder>``."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffexp.errors import InputError
from diffexp.experiment.configs import differing_keys, flat
from diffexp.files import read_json

FREE = (
    "resume",
    "objective",
    "num_samples",
    "batch_size",
    "name",
    "tags",
    "notes",
    "tracker",
    "metric",
    "snapshot_every",
)
"""Keys that may differ: sample i is the same whatever they say."""
DIGESTS = ("weights_sha256", "plan_sha256", "inputs_sha256")
"""Of the code and files that a config only names."""
PLAIN = re.compile(r"(?!null$)[^,${}()]+")
"""A folder as it stands in a command line: no list of several, no interpolation, not nothing."""


@dataclass(frozen=True)
class Earlier:
    """A run whose samples another one takes over."""

    folder: Path
    record: Mapping[str, Any]
    """Its ``run.json``."""


def check_resume(config: Mapping[str, Any], folder: Path) -> None:
    """
    Raises:
        InputError: ``config.resume`` is the folder of the new run itself, which begins by replacing what is there.
    """
    if config["resume"] and Path(config["resume"]).resolve() == folder.resolve():
        raise InputError(f"resume={config['resume']} is this run's own folder; let it go on in a new one")


def named_run(config: Mapping[str, Any]) -> Earlier | None:
    """The run that ``config.resume`` names, if it does.

    Raises:
        InputError: there is none.
    """
    return _there(config["resume"]) if config["resume"] else None


def _there(folder: str) -> Earlier:
    found = read_earlier(Path(folder).expanduser())
    if found is None:
        raise InputError(f"resume={folder}: no run.json there; give the folder of an earlier run or sweep")
    return found


def read_earlier(folder: Path) -> Earlier | None:
    """The run in a folder; None where none has begun."""
    record = read_json(folder / "run.json")
    return Earlier(folder, record) if "config" in record else None


def is_done(folder: Path) -> bool:
    """Whether the run in a folder has nothing left to do."""
    earlier = read_earlier(folder)
    return earlier is not None and earlier.record.get("status") == "done"


def check_same_samples(earlier: Earlier, record: Mapping[str, Any]) -> None:
    """What decides how sample i looks must not have changed: the config, and code and files that it only names.

    Args:
        record: the new run's ``run.json``; without ``plan_sha256`` and ``weights_sha256``, only configs are compared.

    Raises:
        InputError: the first difference.
    """
    # Compared as JSON has them: tuples are lists there.
    now, before = _decisive(json.loads(json.dumps(record, default=str))), _decisive(earlier.record)
    for key in differing_keys([now, before]):
        if key in DIGESTS and (key not in record or not earlier.record.get(key)):
            continue  # it ended before it knew
        raise InputError(
            f"resume={earlier.folder}: {key} was {before.get(key)} and is now {now.get(key)}, which gives other samples"
        )


def _decisive(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of a ``run.json`` decides how sample i looks."""
    config = {key: value for key, value in (record.get("config") or {}).items() if key not in FREE}
    return flat(config) | {key: record.get(key) for key in DIGESTS}
