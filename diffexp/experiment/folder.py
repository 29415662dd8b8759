"""The files of a run: the contract that other tools read."""

import io
import logging
import math
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from PIL import Image

from diffexp.errors import InputError
from diffexp.experiment.image_text import COMMAND, run_texts, sample_texts, with_texts
from diffexp.experiment.media_files import copy_media
from diffexp.experiment.parts import read_division, remove_parts
from diffexp.experiment.per_sample import HALVES, PER_SAMPLE
from diffexp.experiment.pictures.strips import Snapshot, film_gif, film_strip
from diffexp.experiment.provenance import git_commit, given_config_dir, hostname, installed_versions
from diffexp.experiment.recorded import finished_indices, whole_images
from diffexp.experiment.rounds import samples_of
from diffexp.experiment.sample_files import RAW_SAMPLES_DIR, SAMPLE_FILES, SAMPLES_DIR, SampleFiles
from diffexp.experiment.summary import read_metrics
from diffexp.files import read_json, read_yaml, replace_whole, write_json, write_text
from diffexp.plan.table import Plan

log = logging.getLogger(__name__)

TRAJECTORY = ("trajectory.png", "trajectory.gif")
RESULTS = ("metrics.json", PER_SAMPLE, HALVES, "plan.csv", "grid.png", *TRAJECTORY)
"""What a run writes at its end; the results of an earlier run in the same folder are removed."""
COUNTS = ("nfe", "forward_passes", "drawn", "sampling_seconds", "model_seconds")
SAMPLING_FIELDS = ("image_shape", "weights_sha256", "plan_sha256", "inputs_sha256", *COUNTS)
"""Entries of ``run.json`` that describe the samples on disk."""
RESERVE = ".reserve"
RESERVE_BYTES = 1 << 16
"""Occupied while a run goes on, so that its end can be recorded on a full disk."""
PARTIAL_FILES = (".*-????????.*", RESERVE)
PARTIAL_SAMPLES = ("samples/.*-????????.*", f"{RAW_SAMPLES_DIR}/.*-????????.*")
"""Files whose writing was interrupted."""


class RunRecord(TypedDict):
    """The content of ``run.json``."""

    status: str
    """``running``, ``done``, ``failed``, ``interrupted``; ``waiting`` between two rounds of ``stop=decided``."""
    error: str | None
    command: str
    config: Mapping[str, Any]
    seed: int
    nfe: int | None
    """Model evaluations per sample."""
    forward_passes: float | None
    """Forward passes of the network per sample, those for guidance included."""
    image_shape: list[int] | None
    """Channels, height and width of the images on disk; None for points."""
    media: NotRequired[Mapping[str, Any]]
    """``kind`` (video or sound) and ``rate`` of samples that are no images: the images are made from them."""
    host: str
    """The machine of the process that has written this."""
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
    code_sha256: str | None
    """Of the plugins whose code affects samples, besides the plan."""
    plugins: Sequence[Mapping[str, Any]] | None
    """The files of all plugins of the run: ``used_for``, ``path``, ``sha256`` and ``copy``, a path in the folder."""
    wandb_id: str | None
    """At Weights & Biases, or of the first other tracker that has one."""
    tracker_ids: NotRequired[Mapping[str, str]]
    """Identifiers of the run in its trackers, where there are some."""
    drawn: int
    """Samples that ``sampling_seconds`` and ``model_seconds`` are the time of."""
    sampling_seconds: float
    model_seconds: float
    workers: NotRequired[Sequence[Mapping[str, Any]]]
    """The processes that drew the samples, where there were several: ``host``, ``pid``, ``device``, ``job``, and what
    they took: ``samples``, ``seconds``, ``peak_memory_mb``."""
    race: NotRequired[Mapping[str, Any]]
    """With ``stop=decided``: a ``rounds.Round``."""
    same_as: NotRequired[str]
    """Name of the folder that the samples were copied from."""


class RunFolder(SampleFiles):
    """Writes the files of a run; ``run.json`` states at any moment how far the run is.

    Args:
        is_cell: whether the run is a cell of a sweep; the recorded command is then that of the cell alone.
    """

    def __init__(self, folder: Path, *, is_cell: bool = False) -> None:
        super().__init__(folder)
        self.is_cell = is_cell
        self.record: dict[str, Any] = {}
        """The content of ``run.json``, a ``RunRecord``."""
        self._outdated: Sequence[str] | None = ()
        """Patterns of an earlier run's files in this folder; None from ``replace`` on, where writing begins."""

    def begin(self, config: Mapping[str, Any]) -> None:
        """Begin the record of a run; the files of an earlier one in the folder stay until ``replace``.

        Raises:
            InputError: the folder cannot be written, has such files but no ``run.json``, or other processes draw
                samples of the earlier run.
        """
        self.kind = config["samples"]
        remove_parts(self.folder)
        self.record = self._new_record(config)
        self.texts = sample_texts(self.record)
        self._outdated = (*RESULTS, *SAMPLE_FILES, *PARTIAL_FILES, *PARTIAL_SAMPLES)
        found = self._found()
        foreign = [] if self.is_cell or (self.folder / "run.json").is_file() else [p for p in found if p.name[0] != "."]
        if foreign:
            name = foreign[0].relative_to(self.folder)
            raise InputError(
                f"the output folder {self.folder} already contains {name} but no run.json; choose another folder"
            )
        if not any(path.name[0] != "." for path in found):
            self.replace()

    def reopen(self, earlier: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Continue the run with the record ``earlier`` in this folder, its own, keeping its samples."""
        self.kind = config["samples"]
        known = {key: earlier[key] for key in SAMPLING_FIELDS if key in earlier}
        damaged = {key for key in COUNTS if not isinstance(known.get(key), int | float)}
        self.record = self._new_record(config) | {key: value for key, value in known.items() if key not in damaged}
        self.texts = sample_texts(self.record)
        partial = () if read_division(self.folder) else PARTIAL_SAMPLES  # of which others may be writing some
        stays = TRAJECTORY if known.get("drawn") else ()  # its samples are drawn no more
        self._outdated = (*[name for name in RESULTS if name not in stays], *PARTIAL_FILES, *partial)

    def replace(self) -> None:
        """Remove what the earlier run left in the folder, if anything, and write this run's record.

        Raises:
            InputError: the folder cannot be written.
        """
        if self._outdated is None:
            return
        try:
            (self.folder / "samples").mkdir(parents=True, exist_ok=True)
            if (found := self._found()) and (earlier := read_json(self.folder / "run.json")):
                write_json(self.folder / "run.json", earlier | {"status": "interrupted"})  # not done without its files
            for path in found:
                path.unlink(missing_ok=True)
            self._outdated = None
            self._write()
        except OSError as error:
            raise InputError(f"the output folder {self.folder} cannot be written: {error.strerror}") from error
        with suppress(OSError):  # the samples will say that the disk is full
            (self.folder / RESERVE).write_bytes(os.urandom(RESERVE_BYTES))  # not zeros, which may take no space

    def _found(self) -> list[Path]:
        present = {*os.listdir(self.folder)} if self.folder.is_dir() else ()
        heads = {pattern: pattern.partition("/")[0] for pattern in self._outdated or ()}
        # Most are not there, which is seen at a glance.
        patterns = [pattern for pattern, head in heads.items() if head in present or {*"*?["} & {*head}]
        return [path for pattern in patterns for path in self.folder.glob(pattern)]

    def delete_unfinished(self) -> None:
        """Delete what only an unfinished run needs: samples as numbers, records of parts, partial files of workers."""
        self.delete_raw()
        if read_division(self.folder):
            remove_parts(self.folder)
            for path in self.folder.glob(PARTIAL_SAMPLES[0]):
                path.unlink(missing_ok=True)

    def free_reserve(self) -> None:
        """Give the space of the reserve to the last files of the run."""
        (self.folder / RESERVE).unlink(missing_ok=True)

    def _new_record(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A ``RunRecord``; what is not known yet is None."""
        unknown = dict.fromkeys(key for key in RunRecord.__annotations__ if key in RunRecord.__required_keys__)
        return unknown | {
            "status": "running",
            "command": self._command(),
            "config": config,
            "seed": config["seed"],
            "host": hostname(),
            "versions": installed_versions(),
            "git_commit": git_commit(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "drawn": 0,
            "sampling_seconds": 0.0,
            "model_seconds": 0.0,
        }

    def note(self, **facts: Any) -> None:
        """Set entries of ``run.json``, to be written with those of the next ``update``."""
        self.record |= facts

    def update(self, **facts: Any) -> None:
        """Set entries of ``run.json``; they are written from ``replace`` on."""
        self.record |= facts
        if self._outdated is None:
            self._write()

    def _write(self) -> None:
        write_json(self.folder / "run.json", self.record)

    @cached_property
    def words(self) -> list[str] | None:
        """The words of the command line that Hydra composed the run from; None for a run without Hydra."""
        found = read_yaml(self.folder / ".hydra" / "overrides.yaml")
        return [str(word) for word in found] if isinstance(found, list) else None

    def _command(self) -> str:
        words = sys.argv[1:] if self.words is None else [*self.words]
        # The words of a cell may name an experiment that is a sweep.
        if self.is_cell and any(word.startswith("experiment=") for word in words):
            words.append("hydra.mode=RUN")
        if own := given_config_dir(self.folder / ".hydra" / "hydra.yaml"):
            words.insert(0, f"--config-dir={own}")
        return shlex.join(["python", "-m", "diffexp", *words])

    def copy_samples(self, source: "RunFolder") -> int:
        """Copy the whole samples of another folder that this run has indices for; return their number."""
        wanted, earlier = samples_of(self.record), read_json(source.folder / "run.json")
        images = whole_images(source, earlier)
        damaged = sorted({*source.finished_images(), *finished_indices(earlier)} - images.keys())
        if damaged:
            shown = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
            log.warning("%d samples in %s are damaged and are drawn again: %s", len(damaged), source.folder, shown)
        copied = [index for index in images if index < wanted]
        copy_media(copied, *(files.folder / SAMPLES_DIR for files in (source, self)))
        self.images.copy(copied, images)
        indices, points = source.finished_points()
        rows = [row for row, index in enumerate(indices) if index < wanted]
        if rows:
            self.save_points([indices[row] for row in rows], points[rows])
            self.join_points()
        for path in (source.folder / RAW_SAMPLES_DIR).glob("*.safetensors") if copied else ():
            _copy_file(path, self.folder / RAW_SAMPLES_DIR / path.name)
        self.record |= {key: earlier.get(key) for key in ("nfe", "forward_passes", "image_shape")}
        return len(copied) + len(rows)

    def copy_results(self, source: "RunFolder") -> dict[str, float]:
        """Copy everything of a finished run with the same samples; return its metrics."""
        self.copy_samples(source)
        for path in (source.folder / name for name in RESULTS):
            if path.suffix == ".png" and path.exists():
                self._write_png(path.name, path.read_bytes())
            elif path.exists():
                _copy_file(path, self.folder / path.name)
        record = read_json(source.folder / "run.json")
        self.update(same_as=source.folder.name, **{key: record.get(key) for key in SAMPLING_FIELDS})
        return {name: value for name, value in read_metrics(self.folder).items() if value is not None}

    def save_grid(self, image: Image.Image) -> None:
        self._save_png("grid.png", image)

    def save_trajectory(self, snapshots: Sequence[Snapshot], title: str, captions: Sequence[str]) -> None:
        """Write ``trajectory.png``, a film strip, and ``trajectory.gif``."""
        self._save_png("trajectory.png", film_strip(snapshots, title=title, captions=captions))
        film_gif(self.folder / "trajectory.gif", snapshots, title=title, comment=run_texts(self.record)[COMMAND])

    def _save_png(self, name: str, image: Image.Image) -> None:
        content = io.BytesIO()
        image.save(content, "PNG")
        self._write_png(name, content.getvalue())

    def _write_png(self, name: str, png: bytes) -> None:
        with replace_whole(self.folder / name) as temporary:
            temporary.write_bytes(with_texts(png, run_texts(self.record)))

    def save_plan(self, plan: Plan) -> None:
        write_text(self.folder / "plan.csv", plan.to_csv())

    def save_metrics(self, metrics: Mapping[str, float]) -> None:
        # JSON has no NaN: a metric without a value is null.
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        write_json(self.folder / "metrics.json", finite)


def _copy_file(source: Path, target: Path) -> None:
    with replace_whole(target) as temporary:
        shutil.copyfile(source, temporary)
