"""Sweeps that were never run: folders as runs leave them, with made-up pictures and metrics."""

import json
import shlex
import zlib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diffexp.components.metrics.half_samples import estimate, mean_of
from diffexp.experiment.per_sample import write_per_sample
from diffexp.experiment.sample_files import points_csv
from diffexp.sweeps.results import CellResult

SAMPLES = 24
GIVEN = 64
"""``num_samples``, enough for every metric that they have."""
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"quoted\" 'too' {{ 1093 * 3511 }} ${x} ]]>"
"""A text that a page must not take for its own code."""


def cell_of(config: dict[str, Any], folder: str = "sweep/0") -> CellResult:
    """A finished cell that no folder stands for."""
    return CellResult(Path(folder), (), "done", None, config, {}, {})


def made_up_cell(
    sweep: Path,
    name: str,
    config: Mapping[str, Any],
    *,
    status: str = "done",
    error: str | None = None,
    quality: float = 1.0,
    noise: int = 0,
    pictures: int = 2,
    side: int = 32,
    points: torch.Tensor | None = None,
    per_sample: str = "psnr",
    passes: int | None = None,
) -> Path:
    """A run folder.

    Args:
        quality: about what its ``fid/mnist_cnn`` is.
        noise: cells of equal ``noise`` have the same luck with their samples.
        pictures: how many samples are on disk as images of ``side`` pixels.
        points: (N, d), instead of images.
        passes: forward passes per sample; None as in runs of versions that did not count them.
    """
    folder = sweep / name
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps([f"{k}={v}" for k, v in config.items()], default=str))
    (folder / "samples").mkdir()
    whole = {"num_samples": GIVEN, "seed": 0, "model": {"name": "mnist"}} | dict(config)
    if status == "missing":  # Hydra has written the config, and nothing came after
        (folder / ".hydra" / "config.yaml").write_text(json.dumps(whole))
        return folder
    steps = int(whole.get("steps", 10))
    command = shlex.join(["python", "-m", "diffexp", *(f"{key}={value}" for key, value in config.items())])
    facts = {
        "command": command,
        "model_id": "mnist",
        "nfe": steps,
        "seconds": 0.1 * steps,
        "device": "cpu",
        "dtype": "float32",
    }
    (folder / "run.json").write_text(json.dumps({"status": status, "error": error, "config": whole} | facts))
    if points is not None:
        (folder / "samples" / "points.csv").write_text(points_csv(range(len(points)), points))
    for index in range(pictures if points is None else 0):
        hue = (int(40 * quality) + 60 * index) % 256
        Image.new("L", (side, side), hue).save(folder / "samples" / f"{index:06d}.png")
    if status != "done":
        return folder
    luck = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(noise), dtype=torch.float64)
    own = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())), dtype=torch.float64)
    values = quality * (1 + 0.2 * luck) + 0.02 * own
    halves: dict[str, torch.Tensor] = {}
    metrics: dict[str, float] = {"nfe": steps, "seconds_per_image": 0.004 * steps}
    if passes is not None:
        metrics["forward_passes"] = passes
    for key, scale in (("fid/mnist_cnn", 1.0), (per_sample, 10.0)):
        found = estimate(mean_of(scale * values), range(SAMPLES))
        assert found.interval
        metrics |= {key: found.value, f"{key}/low": found.interval[0], f"{key}/high": found.interval[1]}
        halves[key] = found.halves
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_per_sample(folder, range(SAMPLES), {per_sample: 10 * values}, halves)
    return folder


def made_up_sweep(
    folder: Path, schedulers: Sequence[str], steps: Sequence[int], labels: Sequence[int] = (), **more: Any
) -> Path:
    """A cell for each combination; a scheduler is the better the later it comes, and all gain from steps.

    Cells of equal ``label`` have the same luck with their samples.
    """
    for number, (scheduler, count, label) in enumerate(product(schedulers, steps, labels or (None,))):
        config: dict[str, Any] = {"scheduler": {"name": scheduler}, "steps": count}
        config |= {} if label is None else {"label": label}
        quality = 0.5 + 40 / (count * (1 + 0.5 * schedulers.index(scheduler)))
        made_up_cell(folder, f"{number}_{scheduler}_{count}", config, quality=quality, noise=label or 0, **more)
    return folder
