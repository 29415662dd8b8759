"""Going on with a run that did not finish: ``resume=<run folder>``."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diffexp.errors import InputError
from diffexp.outputs import RunFolder, read_image
from diffexp.sweep.results import differing_keys, flat

log = logging.getLogger(__name__)

FREE = ("resume", "num_samples", "batch_size", "name", "tags", "notes", "tracker", "metric", "snapshot_every")
"""Keys that may differ: sample i is the same whatever they say."""


def check_resume(config: Mapping[str, Any], folder: Path) -> None:
    """
    Raises:
        InputError: ``config.resume`` is the folder of the new run itself, which begins by replacing what is there.
    """
    if config["resume"] and Path(config["resume"]).resolve() == folder.resolve():
        raise InputError(f"resume={config['resume']} is this run's own folder; let it go on in a new one")


def earlier_samples(output: RunFolder) -> dict[int, Tensor]:
    """Images [C, H, W] in [0, 1] that the run in ``config.resume`` left, by index, copied into this run's folder.

    Raises:
        InputError: no such run, or one that drew other samples; the message names the difference.
    """
    config = output.record["config"]
    if not config["resume"]:
        return {}
    folder = Path(config["resume"])
    record = folder / "run.json"
    if not record.is_file():
        raise InputError(f"resume={folder}: no run.json there; give the folder of an earlier run")
    # Compared as JSON has them: tuples are lists there.
    now = _decisive(json.loads(json.dumps(output.record, default=str)))
    earlier = _decisive(json.loads(record.read_text(encoding="utf-8")))
    for key in differing_keys([now, earlier]):
        raise InputError(
            f"resume={folder}: {key} was {earlier.get(key)} and is now {now.get(key)}, which gives other samples"
        )
    images: dict[int, Tensor] = {}
    for index, path in RunFolder(folder).finished_images().items():
        if index < int(config["num_samples"]):
            images[index] = read_image(path)
            output.save_images([index], images[index].unsqueeze(0))
    log.info("%d of %d samples taken over from %s", len(images), config["num_samples"], folder)
    return images


def _decisive(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of a ``run.json`` decides how sample i looks: the config, and the code and files that it only names."""
    config = {key: value for key, value in (record.get("config") or {}).items() if key not in FREE}
    return flat(config) | {key: record.get(key) for key in ("weights_sha256", "plan_sha256")}
