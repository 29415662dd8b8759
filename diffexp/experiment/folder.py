"""The files of a run: the contract that other tools read."""

import csv
import io
import math
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
import yaml
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffexp.components.pixels import to_image, to_tensor
from diffexp.errors import InputError
from diffexp.experiment.per_sample import PER_SAMPLE, RESAMPLES
from diffexp.experiment.pictures.strips import Snapshot, film_gif, film_strip
from diffexp.experiment.provenance import git_commit, installed_versions
from diffexp.files import read_json, replace_whole, write_json, write_text
from diffexp.plan.table import Plan

RESULTS = ("metrics.json", PER_SAMPLE, RESAMPLES, "plan.csv", "grid.png", "trajectory.png", "trajectory.gif")
"""What a run writes at its end; the results of an earlier run in the same folder are removed."""
RAW_SAMPLES_DIR = ".unfinished"
"""Samples of an unfinished run as numbers, where a metric reads more of them than the 8-bit images have."""
SAMPLE_FILES = ("samples/*.png", "samples/points*.csv", f"{RAW_SAMPLES_DIR}/*.safetensors")
SAMPLING_FIELDS = (
    "nfe",
    "forward_passes",
    "weights_sha256",
    "plan_sha256",
    "drawn",
    "sampling_seconds",
    "model_seconds",
)
"""Entries of ``run.json`` that describe the samples on disk."""
PARTIAL_FILES = (".*-????????.*", "samples/.*-????????.*")
"""Files whose writing was interrupted."""


class RunRecord(TypedDict):
    """The content of ``run.json``."""

    status: str
    """``running``, ``done``, ``failed`` or ``interrupted``."""
    error: str | None
    command: str
    config: Mapping[str, Any]
    seed: int
    nfe: int | None
    """Model evaluations per sample."""
    forward_passes: float | None
    """Forward passes of the network per sample, those for guidance included."""
    device: str | None
    dtype: str | None
    versions: Mapping[str, str]
    git_commit: str | None
    started: str
    """ISO 8601, UTC."""
    seconds: float | None
    model_id: str | None
    weights_sha256: str | None
    plan_sha256: str | None
    inputs_sha256: str | None
    wandb_id: str | None
    drawn: int
    """Samples that ``sampling_seconds`` and ``model_seconds`` are the time of."""
    sampling_seconds: float
    model_seconds: float
    same_as: NotRequired[str]
    """Name of the folder that the samples were copied from."""


class RunFolder:
    """Writes the files of a run; ``run.json`` states at any moment how far the run is.

    Args:
        is_cell: whether the run is a cell of a sweep; the recorded command is then that of the cell alone.
    """

    def __init__(self, folder: Path, *, is_cell: bool = False) -> None:
        self.folder = folder
        self.is_cell = is_cell
        self.record: dict[str, Any] = {}
        """The content of ``run.json``, a ``RunRecord``."""

    def begin(self, config: Mapping[str, Any]) -> None:
        """Write the first ``run.json`` and remove what an earlier run left in the folder.

        Raises:
            InputError: the folder cannot be written, or has such files but no ``run.json``.
        """
        self._start(self._new_record(config), (*RESULTS, *SAMPLE_FILES, *PARTIAL_FILES))

    def reopen(self, earlier: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Continue the run with the record ``earlier`` in this folder, its own, keeping its samples.

        Raises:
            InputError: the folder cannot be written.
        """
        sampling = {key: earlier[key] for key in SAMPLING_FIELDS if key in earlier}
        self._start(self._new_record(config) | sampling, (*RESULTS, *PARTIAL_FILES))

    def _start(self, record: dict[str, Any], remove: Sequence[str]) -> None:
        self.record = record
        found = [path for pattern in remove for path in self.folder.glob(pattern)]
        foreign = [] if (self.folder / "run.json").is_file() else [path for path in found if path.name[0] != "."]
        if foreign:
            name = foreign[0].relative_to(self.folder)
            raise InputError(
                f"the output folder {self.folder} already contains {name} but no run.json; choose another folder"
            )
        try:
            (self.folder / "samples").mkdir(parents=True, exist_ok=True)
            for path in found:
                path.unlink()
            self._write()
        except OSError as error:
            raise InputError(f"the output folder {self.folder} cannot be written: {error.strerror}") from error

    def _new_record(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A ``RunRecord``; what is not known yet is None."""
        unknown = dict.fromkeys(key for key in RunRecord.__annotations__ if key in RunRecord.__required_keys__)
        return unknown | {
            "status": "running",
            "command": self._command(),
            "config": config,
            "seed": config["seed"],
            "versions": installed_versions(),
            "git_commit": git_commit(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "drawn": 0,
            "sampling_seconds": 0.0,
            "model_seconds": 0.0,
        }

    def update(self, **facts: Any) -> None:
        """Set entries of ``run.json``."""
        self.record |= facts
        self._write()

    def _write(self) -> None:
        write_json(self.folder / "run.json", self.record)

    @property
    def words(self) -> list[str] | None:
        """The words of the command line that Hydra composed the run from; None for a run without Hydra."""
        overrides = self.folder / ".hydra" / "overrides.yaml"
        if not overrides.is_file():
            return None
        return [str(word) for word in yaml.safe_load(overrides.read_text(encoding="utf-8")) or []]

    def _command(self) -> str:
        words = sys.argv[1:] if self.words is None else self.words
        # The words of a cell may name an experiment that is a sweep.
        if self.is_cell and any(word.startswith("experiment=") for word in words):
            words.append("hydra.mode=RUN")
        return shlex.join(["python", "-m", "diffexp", *words])

    def sample_path(self, index: int) -> Path:
        return self.folder / "samples" / f"{index:06d}.png"

    def save_samples(self, indices: Sequence[int], samples: Tensor) -> None:
        """Write a batch of finished samples: images [B, C, H, W] in [0, 1], or points [B, d]."""
        if samples.ndim == 2:
            self.save_points(indices, samples)
        else:
            self.save_images(indices, samples)

    def save_images(self, indices: Sequence[int], images: Tensor) -> None:
        """Write one lossless PNG per sample, named by its index; ``images`` [B, C, H, W] in [0, 1]."""
        for index, image in zip(indices, images):
            with replace_whole(self.sample_path(index)) as temporary:
                to_image(image).save(temporary, "PNG", compress_level=1)

    def store_raw(self, indices: Sequence[int], samples: Tensor) -> None:
        """Store a batch of samples [B, *shape] as numbers, for a run that resumes this one; see ``load_raw``."""
        with replace_whole(self.folder / RAW_SAMPLES_DIR / f"{indices[0]:06d}.safetensors") as temporary:
            temporary.write_bytes(save({str(i): x.contiguous() for i, x in zip(indices, samples)}))

    def raw_files(self) -> dict[int, Path]:
        """The files of samples stored as numbers, by index, for ``load_raw``; empty for a finished run."""
        found: dict[int, Path] = {}
        for path in sorted((self.folder / RAW_SAMPLES_DIR).glob("[0-9]*.safetensors")):
            with suppress(SafetensorError, OSError, ValueError), safe_open(path, "pt") as file:
                found |= {int(name): path for name in file.keys()}  # noqa: SIM118
        return found

    def delete_raw(self) -> None:
        """Delete samples stored as numbers, once the run is done."""
        shutil.rmtree(self.folder / RAW_SAMPLES_DIR, ignore_errors=True)

    def finished_images(self) -> dict[int, Path]:
        """Samples that are on disk as images, by index."""
        paths = sorted((self.folder / "samples").glob("*.png"))
        return {int(path.stem): path for path in paths if path.stem.isdecimal()}

    def save_points(self, indices: Sequence[int], points: Tensor) -> None:
        """Write a batch of ``points`` [B, d] to a file of its own until ``join_points``."""
        write_text(self.folder / "samples" / f"points-{indices[0]:06d}.csv", points_csv(indices, points))

    def join_points(self) -> None:
        """Merge the batches into ``samples/points.csv``: a line per sample, a column per coordinate."""
        indices, points = self.finished_points()
        if indices:
            write_text(self.folder / "samples" / "points.csv", points_csv(indices, points))
        for path in self.folder.glob("samples/points-*.csv"):
            path.unlink()

    def finished_points(self) -> tuple[list[int], Tensor]:
        """Samples that are on disk as points: their indices, in order, and the points [N, d]."""
        found: dict[int, list[float]] = {}
        for path in self.folder.glob("samples/points*.csv"):
            with path.open(encoding="utf-8") as file:
                found |= {int(row[0]): [float(value) for value in row[1:]] for row in list(csv.reader(file))[1:]}
        indices = sorted(found)
        return indices, torch.tensor([found[index] for index in indices])

    def copy_samples(self, source: "RunFolder") -> int:
        """Copy the samples of another folder with indices below ``num_samples`` of this run; return their number."""
        wanted = int(self.record["config"]["num_samples"])
        images = {index: path for index, path in source.finished_images().items() if index < wanted}
        for index, path in images.items():
            _copy_file(path, self.sample_path(index))
        indices, points = source.finished_points()
        rows = [row for row, index in enumerate(indices) if index < wanted]
        if rows:
            self.save_points([indices[row] for row in rows], points[rows])
            self.join_points()
        raw = {index: path for index, path in source.raw_files().items() if index in images}
        for path in dict.fromkeys(raw.values()):
            own = [index for index in raw if raw[index] == path]
            self.store_raw(own, load_raw(raw, own))
        record = read_json(source.folder / "run.json")
        self.record |= {key: record.get(key) for key in ("nfe", "forward_passes")}
        return len(images) + len(rows)

    def copy_results(self, source: "RunFolder") -> dict[str, float]:
        """Copy everything of a finished run with the same samples; return its metrics."""
        self.copy_samples(source)
        for path in (source.folder / name for name in RESULTS):
            if path.exists():
                _copy_file(path, self.folder / path.name)
        record = read_json(source.folder / "run.json")
        self.update(same_as=source.folder.name, **{key: record.get(key) for key in SAMPLING_FIELDS})
        metrics = read_json(self.folder / "metrics.json")
        return {name: value for name, value in metrics.items() if value is not None}

    def save_grid(self, image: Image.Image) -> None:
        with replace_whole(self.folder / "grid.png") as temporary:
            image.save(temporary, "PNG")

    def save_trajectory(self, snapshots: Sequence[Snapshot], title: str, captions: Sequence[str]) -> None:
        """Write ``trajectory.png``, a film strip, and ``trajectory.gif``."""
        with replace_whole(self.folder / "trajectory.png") as temporary:
            film_strip(snapshots, title=title, captions=captions).save(temporary, "PNG")
        film_gif(self.folder / "trajectory.gif", snapshots, title=title)

    def save_plan(self, plan: Plan) -> None:
        write_text(self.folder / "plan.csv", plan.to_csv())

    def save_metrics(self, metrics: Mapping[str, float]) -> None:
        # JSON has no NaN: a metric without a value is null.
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        write_json(self.folder / "metrics.json", finite)


def _copy_file(source: Path, target: Path) -> None:
    with replace_whole(target) as temporary:
        shutil.copyfile(source, temporary)


def load_raw(raw: Mapping[int, Path], indices: Sequence[int]) -> Tensor:
    """Samples [len(indices), *shape] from their ``raw_files``."""
    found = []
    for index in indices:
        with safe_open(raw[index], "pt") as file:
            found.append(file.get_tensor(str(index)))
    return torch.stack(found)


def points_csv(indices: Sequence[int], points: Tensor) -> str:
    """One line per sample, its index and coordinates; float32 numbers are the same when read back."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["index", *(f"x{i}" for i in range(points.shape[1]))])
    writer.writerows([index, *row] for index, row in zip(indices, points.tolist()))
    return out.getvalue()


def read_image(path: Path) -> Tensor:
    """The PNG of a sample as [C, H, W] in [0, 1]."""
    with Image.open(path) as image:
        return to_tensor([image])[0]
