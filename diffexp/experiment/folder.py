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
from typing import Any

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
"""What a run writes at its end; of an earlier run in the same folder it must not be taken for this one's."""
UNFINISHED = ".unfinished"
"""The samples of a run that is not done, as numbers, where a metric wants them: pictures cannot say all of them."""
SAMPLES = ("samples/*.png", "samples/points*.csv", f"{UNFINISHED}/*.safetensors")
OF_THE_SAMPLES = ("nfe", "weights_sha256", "plan_sha256", "drawn", "sampling_seconds", "model_seconds")
"""What ``run.json`` says of the samples that are there."""
HALVES = (".*-????????.*", "samples/.*-????????.*")
"""Files whose writing was cut short."""


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
        self._start(config, (*RESULTS, *SAMPLES, *HALVES), {})

    def go_on(self, earlier: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """The same where the run with the record ``earlier`` ended, in this very folder; its samples stay.

        Raises:
            InputError: the folder cannot be written.
        """
        self._start(config, (*RESULTS, *HALVES), {key: earlier[key] for key in OF_THE_SAMPLES if key in earlier})

    def _start(self, config: Mapping[str, Any], remove: Sequence[str], kept: Mapping[str, Any]) -> None:
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
            "inputs_sha256": None,
            "wandb_id": None,
            "drawn": 0,
            "sampling_seconds": 0.0,
            "model_seconds": 0.0,
            **kept,
        }
        there = [path for pattern in remove for path in self.folder.glob(pattern)]
        foreign = [] if (self.folder / "run.json").is_file() else [path for path in there if path.name[0] != "."]
        if foreign:
            name = foreign[0].relative_to(self.folder)
            raise InputError(
                f"the output folder {self.folder} is none of a run, and {name} is in it: choose another one"
            )
        try:
            (self.folder / "samples").mkdir(parents=True, exist_ok=True)
            for path in there:
                path.unlink()
            self._write()
        except OSError as error:
            raise InputError(f"the output folder {self.folder} cannot be written: {error.strerror}") from error

    def update(self, **facts: Any) -> None:
        """Change entries of ``run.json``."""
        self.record |= facts
        self._write()

    def _write(self) -> None:
        write_json(self.folder / "run.json", self.record)

    def _command(self) -> str:
        overrides, composed = (self.folder / ".hydra" / name for name in ("overrides.yaml", "hydra.yaml"))
        words = (
            [str(word) for word in yaml.safe_load(overrides.read_text(encoding="utf-8")) or []]
            if overrides.is_file()
            else sys.argv[1:]
        )
        # An experiment may make a sweep of what is one cell of it.
        if any(word.startswith("experiment=") for word in words) and composed.is_file():
            words += ["hydra.mode=RUN"] if "\n  mode: MULTIRUN\n" in composed.read_text(encoding="utf-8") else []
        return shlex.join(["python", "-m", "diffexp", *words])

    def sample_path(self, index: int) -> Path:
        return self.folder / "samples" / f"{index:06d}.png"

    def save_samples(self, indices: Sequence[int], samples: Tensor) -> None:
        """A batch of finished samples: images [B, C, H, W] in [0, 1], or points [B, d]."""
        if samples.ndim == 2:
            self.save_points(indices, samples)
        else:
            self.save_images(indices, samples)

    def save_images(self, indices: Sequence[int], images: Tensor) -> None:
        """One lossless PNG per sample, named by its index; ``images`` [B, C, H, W] in [0, 1]."""
        for index, image in zip(indices, images):
            with replace_whole(self.sample_path(index)) as temporary:
                to_image(image).save(temporary, "PNG", compress_level=1)

    def keep(self, indices: Sequence[int], samples: Tensor) -> None:
        """A batch of samples [B, *shape] as they are, for a run that goes on from here; see ``kept``."""
        with replace_whole(self.folder / UNFINISHED / f"{indices[0]:06d}.safetensors") as temporary:
            temporary.write_bytes(save({str(i): x.contiguous() for i, x in zip(indices, samples)}))

    def kept(self) -> dict[int, Path]:
        """Where samples are as they are, by index, for ``kept_samples``; nothing of a run that is done."""
        found: dict[int, Path] = {}
        for path in sorted((self.folder / UNFINISHED).glob("[0-9]*.safetensors")):
            with suppress(SafetensorError, OSError, ValueError), safe_open(path, "pt") as file:
                found |= {int(name): path for name in file.keys()}  # noqa: SIM118
        return found

    def forget_kept(self) -> None:
        """The run is done."""
        shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)

    def finished_images(self) -> dict[int, Path]:
        """Samples that are on disk as images, by index."""
        paths = sorted((self.folder / "samples").glob("*.png"))
        return {int(path.stem): path for path in paths if path.stem.isdecimal()}

    def save_points(self, indices: Sequence[int], points: Tensor) -> None:
        """A batch of ``points`` [B, d], in a file of its own until ``join_points``."""
        write_text(self.folder / "samples" / f"points-{indices[0]:06d}.csv", points_csv(indices, points))

    def join_points(self) -> None:
        """``samples/points.csv`` from all batches: a line per sample, a column per coordinate."""
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
        """Take over the samples in another folder, as far as this run wants them; their number."""
        wanted = int(self.record["config"]["num_samples"])
        images = {index: path for index, path in source.finished_images().items() if index < wanted}
        for index, path in images.items():
            _copy(path, self.sample_path(index))
        indices, points = source.finished_points()
        rows = [row for row, index in enumerate(indices) if index < wanted]
        if rows:
            self.save_points([indices[row] for row in rows], points[rows])
            self.join_points()
        kept = {index: path for index, path in source.kept().items() if index in images}
        for path in dict.fromkeys(kept.values()):
            own = [index for index in kept if kept[index] == path]
            self.keep(own, kept_samples(kept, own))
        self.record["nfe"] = read_json(source.folder / "run.json").get("nfe")
        return len(images) + len(rows)

    def copy_results(self, source: "RunFolder") -> dict[str, float]:
        """Take over all that a finished run of the same samples has left; its metrics."""
        self.copy_samples(source)
        for path in (source.folder / name for name in RESULTS):
            if path.exists():
                _copy(path, self.folder / path.name)
        theirs = read_json(source.folder / "run.json")
        self.update(same_as=source.folder.name, **{key: theirs.get(key) for key in OF_THE_SAMPLES})
        metrics = read_json(self.folder / "metrics.json")
        return {name: value for name, value in metrics.items() if value is not None}

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


def _copy(source: Path, target: Path) -> None:
    with replace_whole(target) as temporary:
        shutil.copyfile(source, temporary)


def kept_samples(kept: Mapping[int, Path], indices: Sequence[int]) -> Tensor:
    """Samples [len(indices), *shape] from where they were ``kept``."""
    found = []
    for index in indices:
        with safe_open(kept[index], "pt") as file:
            found.append(file.get_tensor(str(index)))
    return torch.stack(found)


def points_csv(indices: Sequence[int], points: Tensor) -> str:
    """A line per sample with its index and coordinates; read back, they are the same float32 numbers."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["index", *(f"x{i}" for i in range(points.shape[1]))])
    writer.writerows([index, *row] for index, row in zip(indices, points.tolist()))
    return out.getvalue()


def read_image(path: Path) -> Tensor:
    """A sample's PNG as [C, H, W] in [0, 1]."""
    with Image.open(path) as image:
        return to_tensor([image])[0]
