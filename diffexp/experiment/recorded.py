"""The samples of a run on disk, as its ``run.json`` describes them."""

from collections.abc import Iterable, Mapping
from typing import Any

from diffexp.experiment.rounds import samples_of
from diffexp.experiment.sample_files import SampleFiles
from diffexp.experiment.stores.base import Shape
from diffexp.experiment.stores.images import StoredImages


def whole_images(files: SampleFiles, record: Mapping[str, Any], within: range | None = None) -> StoredImages:
    """The samples of the run with this ``run.json`` that are whole on disk as images, with their videos or sounds.

    Args:
        within: only those of these indices, for which not all files are read.
    """
    found = files.intact_images(recorded_shape(record), within)
    return files.with_media(found, (record.get("media") or {}).get("kind"))


def finished_indices(record: Mapping[str, Any]) -> Iterable[int]:
    """The images that the run with this ``run.json`` has finished for certain: all of one that is done."""
    done = record.get("status") == "done" and recorded_shape(record)
    return range(samples_of(record)) if done else ()


def recorded_shape(record: Mapping[str, Any]) -> Shape | None:
    """The shape [C, H, W] of the images of the run with this ``run.json``, where it has one."""
    shape = record.get("image_shape")
    return tuple(shape) if isinstance(shape, list) and shape else None
