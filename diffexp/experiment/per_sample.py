"""Files of a run for comparing it with others sample by sample.

sample_metrics.csv       a line per sample, a column per metric with per-sample values
half_samples.safetensors each metric with an interval on halves of the samples: see ``components.metrics.half_samples``
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from diffexp.files import replace_whole, write_text

PER_SAMPLE = "sample_metrics.csv"
HALVES = "half_samples.safetensors"


def write_per_sample(
    folder: Path, indices: Sequence[int], per_sample: Mapping[str, Tensor], halves: Mapping[str, Tensor]
) -> None:
    """Write both files, each if there is something to write.

    Args:
        folder: of the run.
        indices: of the samples, in the order of the values.
        per_sample: (len(indices),) by metric.
        halves: (2, B) by metric; empty ones are skipped.
    """
    if per_sample:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["index", *per_sample])
        order = sorted(range(len(indices)), key=indices.__getitem__)
        writer.writerows([indices[i], *(values[i].item() for values in per_sample.values())] for i in order)
        write_text(folder / PER_SAMPLE, text.getvalue())
    written = {name: values.float().contiguous() for name, values in halves.items() if values.numel()}
    if written:
        with replace_whole(folder / HALVES) as temporary:
            temporary.write_bytes(save(written))


def read_halves(folder: Path) -> dict[str, Tensor]:
    """The values on halves by metric, (2, B) float64; empty where the run has none that can be read."""
    try:
        return {name: values.double() for name, values in load_file(folder / HALVES).items() if values.ndim == 2}
    except (OSError, SafetensorError):
        return {}


def as_column(value: object, count: int) -> Tensor | None:
    """A value as one number per sample, (count,) float64; None where it is not."""
    if isinstance(value, Tensor) and value.ndim == 1 and len(value) == count:
        return value.detach().to("cpu", torch.float64)
    return None
