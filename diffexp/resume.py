"""Going on with a run that did not finish: ``resume=<run folder>``."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diffexp.errors import InputError
from diffexp.outputs import RunFolder, read_image

log = logging.getLogger(__name__)

FREE = ("resume", "num_samples", "batch_size", "name", "tags", "notes", "tracker", "metric", "snapshot_every")
"""Keys that may differ: sample i is the same whatever they say."""


def earlier_samples(config: Mapping[str, Any], output: RunFolder) -> dict[int, Tensor]:
    """Images [C, H, W] in [0, 1] that the run in ``config.resume`` left, by index, copied into this run's folder.

    Raises:
        InputError: no such run, or one of another config; the message names the difference.
    """
    if not config["resume"]:
        return {}
    folder = Path(config["resume"])
    record = folder / "run.json"
    if not record.is_file():
        raise InputError(f"resume={folder}: no run.json there; give the folder of an earlier run")
    earlier = json.loads(record.read_text(encoding="utf-8"))["config"]
    # Compared as JSON has them: tuples are lists there.
    now = json.loads(json.dumps(dict(config), default=str))
    changed = [key for key in now if key not in FREE and now[key] != earlier.get(key)]
    if changed:
        key = changed[0]
        raise InputError(f"resume={folder}: {key} was {earlier.get(key)} and is now {now[key]}; give the same config")
    images: dict[int, Tensor] = {}
    for index, path in RunFolder(folder).finished_images().items():
        if index < int(config["num_samples"]):
            images[index] = read_image(path)
            output.save_images([index], images[index].unsqueeze(0))
    log.info("%d of %d samples taken over from %s", len(images), config["num_samples"], folder)
    return images
