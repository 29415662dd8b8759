"""Resuming a run that did not finish: ``resume=<run folder>``, or a cell of ``resume=<sweep folder>``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffexp.catalog.types import flat
from diffexp.errors import InputError
from diffexp.experiment.configs import KEYS_OF_THE_REPORT, differing_keys
from diffexp.files import as_read, read_json

IRRELEVANT_TO_A_SAMPLE = (*KEYS_OF_THE_REPORT, "num_samples", "batch_size")
"""Config keys that do not affect sample i, of however many."""
DIGESTS = ("weights_sha256", "plan_sha256", "inputs_sha256")
"""Hashes of code and files that a config refers to."""
REQUIRED = {"config", "status", "device", "dtype", *DIGESTS}
"""Entries of ``run.json`` that say which samples a finished run has."""
PLAIN = re.compile(r"(?!null$)[^,${}()]+")
"""A folder in a command line: not a list, an interpolation or null."""


@dataclass(frozen=True)
class Earlier:
    """A run whose samples another one continues from."""

    folder: Path
    record: Mapping[str, Any]
    """Its ``run.json``."""


def is_continued(config: Mapping[str, Any], folder: Path, *, divided: bool) -> bool:
    """Whether a run goes on in its own folder, where other processes may be drawing parts of it.

    Args:
        divided: whether the run is divided into parts; any other replaces the files in its folder first.

    Raises:
        InputError: ``config.resume`` is the folder of such another run.
    """
    own = resumes_itself(config, folder)
    if own and not divided:
        raise InputError(f"resume={config['resume']} is this run's own folder; choose another output folder")
    return own


def run_to_resume(config: Mapping[str, Any], folder: Path) -> Earlier | None:
    """The run in another folder than its own that ``config.resume`` names; None where there is none.

    Raises:
        InputError: there is no such run.
    """
    return read_run_or_raise(config["resume"]) if config["resume"] and not resumes_itself(config, folder) else None


def resumes_itself(config: Mapping[str, Any], folder: Path) -> bool:
    """Whether ``config.resume`` is this folder."""
    return bool(config["resume"]) and Path(config["resume"]).expanduser().resolve() == folder.resolve()


def read_run_or_raise(folder: str) -> Earlier:
    """The run in the folder of ``resume=<folder>``.

    Raises:
        InputError: no run has begun there, or its record is damaged.
    """
    place = Path(folder).expanduser()
    found = read_earlier(place)
    if found is None and (place / "run.json").is_file():
        raise InputError(f"resume={folder}: its run.json is damaged; run its command again")
    if found is None:
        raise InputError(f"resume={folder}: no run.json there; give the folder of an earlier run or sweep")
    return found


def read_earlier(folder: Path) -> Earlier | None:
    """The run in a folder; None where none has begun, or its record is damaged."""
    record = read_json(folder / "run.json")
    return Earlier(folder, record) if isinstance(record.get("config"), Mapping) else None


def check_same_samples(earlier: Earlier, record: Mapping[str, Any]) -> None:
    """Check that nothing has changed that affects a sample: the config, and the code and files that it refers to.

    Args:
        record: ``run.json`` of the new run; without ``plan_sha256`` and ``weights_sha256``, only configs are compared.

    Raises:
        InputError: the first difference.
    """
    now, before = _decisive(as_read(record)), _decisive(earlier.record)
    begun = earlier.record.get("model_id") is not None  # else it ended before its hashes were known
    for key in differing_keys([now, before]):
        if key in DIGESTS and not (begun and key in record and key in earlier.record):
            continue
        raise InputError(
            f"resume={earlier.folder}: {key} was {before.get(key)} and is now {now.get(key)}, which gives other samples"
        )


def _decisive(record: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a ``run.json`` that affect samples, flat."""
    config = {key: value for key, value in (record.get("config") or {}).items() if key not in IRRELEVANT_TO_A_SAMPLE}
    return flat(config) | {key: record.get(key) for key in DIGESTS}
