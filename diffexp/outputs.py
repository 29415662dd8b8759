"""The files of a run: the contract that other tools read."""

import csv
import io
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from diffexp.errors import InputError
from diffexp.files import replace_whole, write_json, write_text
from diffexp.pictures import Snapshot, film_gif, film_strip, image_grid, scatter, to_image
from diffexp.plan import Plan

PACKAGES = ("diffexp", "torch", "diffusers", "hydra-core", "omegaconf", "wandb", "torchmetrics", "pillow")


class RunFolder:
    """Writes one run's files; ``run.json`` says at any moment how far the run is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record: dict[str, Any] = {}
        """What ``run.json`` says."""

    def begin(self, config: Mapping[str, Any]) -> None:
        """Write the first ``run.json``; what an earlier run left in the folder is removed.

        Raises:
            InputError: the folder cannot be written.
        """
        self.record = {
            "status": "running",
            "error": None,
            "command": self._command(),
            "config": config,
            "seed": config["seed"],
            "nfe": None,
            "device": None,
            "dtype": None,
            "versions": installed_versions(),
            "git_commit": git_commit(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": None,
            "model_id": None,
            "weights_sha256": None,
            "plan_sha256": None,
            "wandb_id": None,
        }
        try:
            (self.folder / "samples").mkdir(parents=True, exist_ok=True)
            self._clear()
            self._write()
        except OSError as error:
            raise InputError(f"the output folder {self.folder} cannot be written: {error.strerror}") from error

    def _clear(self) -> None:
        """Remove what an earlier run in the same folder left, lest it is taken for this one's."""
        for name in ("metrics.json", "plan.csv", "grid.png", "trajectory.png", "trajectory.gif", "samples/points.csv"):
            (self.folder / name).unlink(missing_ok=True)
        for path in self.finished_images().values():
            path.unlink()

    def update(self, **facts: Any) -> None:
        """Change entries of ``run.json``."""
        self.record |= facts
        self._write()

    def _write(self) -> None:
        write_json(self.folder / "run.json", self.record)

    def _command(self) -> str:
        overrides = self.folder / ".hydra" / "overrides.yaml"
        words = list(OmegaConf.load(overrides)) if overrides.is_file() else sys.argv[1:]
        return shlex.join(["python", "-m", "diffexp", *map(str, words)])

    def sample_path(self, index: int) -> Path:
        return self.folder / "samples" / f"{index:06d}.png"

    def save_images(self, indices: Sequence[int], images: Tensor) -> None:
        """One lossless PNG per sample, named by its index; ``images`` [B, C, H, W] in [0, 1]."""
        for index, image in zip(indices, images):
            with replace_whole(self.sample_path(index)) as temporary:
                to_image(image).save(temporary, "PNG", compress_level=1)

    def finished_images(self) -> dict[int, Path]:
        """Samples that are on disk, by index."""
        paths = sorted((self.folder / "samples").glob("*.png"))
        return {int(path.stem): path for path in paths if path.stem.isdecimal()}

    def save_points(self, points: Tensor) -> None:
        """``samples/points.csv``: a line per sample, a column per coordinate; ``points`` [N, d]."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["index", *(f"x{i}" for i in range(points.shape[1]))])
        writer.writerows([index, *row] for index, row in enumerate(points.tolist()))
        write_text(self.folder / "samples" / "points.csv", out.getvalue())

    def save_grid(self, picture: Image.Image) -> None:
        with replace_whole(self.folder / "grid.png") as temporary:
            picture.save(temporary, "PNG")

    def save_trajectory(self, snapshots: Sequence[Snapshot], title: str, captions: Sequence[str]) -> None:
        """``trajectory.png``, a film strip, and ``trajectory.gif``."""
        with replace_whole(self.folder / "trajectory.png") as temporary:
            film_strip(snapshots, title=title, captions=captions).save(temporary, "PNG")
        film_gif(self.folder / "trajectory.gif", snapshots, title=title)

    def save_plan(self, plan: Plan) -> None:
        write_text(self.folder / "plan.csv", plan.to_csv())

    def save_metrics(self, metrics: Mapping[str, float]) -> None:
        # NaN is no JSON: a metric without a value is null.
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        write_json(self.folder / "metrics.json", finite)


def overview(samples: Tensor, captions: Sequence[str], truth: Tensor | None, title: str) -> Image.Image:
    """What ``grid.png`` shows: pictures [N, C, H, W] in [0, 1] side by side, or points [N, d] as a scatter plot."""
    if samples.ndim == 2:
        return scatter(samples, truth, title)
    return image_grid(samples, captions=captions if any(captions) else None)


def installed_versions() -> dict[str, str]:
    """Versions of what a result can depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit checked out in the working folder, with ``-dirty`` where tracked files differ; None outside of git."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() or None


def read_image(path: Path) -> Tensor:
    """A sample's PNG as [C, H, W] in [0, 1]."""
    with Image.open(path) as image:
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return pixels.view(image.height, image.width, -1).permute(2, 0, 1).float() / 255
