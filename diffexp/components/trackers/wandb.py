"""Weights & Biases: online if the user is logged in, otherwise offline, without a prompt or a delay."""

from __future__ import annotations

import logging
import os
import shlex
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexp import tracker
from diffexp.components.checkpoints.network import reachable
from diffexp.components.trackers.base import Comparison, RunInfo, SampleRow
from diffexp.components.trackers.wandb_mode import MODES, PROBE_SECONDS, choose_mode, server
from diffexp.components.trackers.wandb_workspace import save_workspace
from diffexp.errors import InputError

if TYPE_CHECKING:
    import wandb
    from PIL import Image

log = logging.getLogger(__name__)

INIT_SECONDS = 20.0
"""Time-out of the server's answer; wandb's own is a minute and a half."""
MAX_NAME = 128
"""Longest name that W&B accepts."""
REFUSED = frozenset("/\\#?%:")
"""Characters that a project's name must not have."""
MAX_IMAGES = 108
"""Images of one list that W&B shows."""
MAX_ROWS = 1000
"""Samples of the table, which has their images in memory; the run folder has the others."""
STEP = "steps/step"
"""The axis of values logged per solver step."""
SAMPLES = "samples_done"
"""The axis of metrics and images: the samples of the run that are finished."""
FINISH_SECONDS = 300.0
"""How long the end of a run waits for the server to take the rest of it; wandb itself waits forever."""
PICTURES = "pictures"
"""The column of a comparison, and the key of its images."""
EXIT_CODES = {"done": 0, "interrupted": 255}
"""Exit codes of a W&B run by status, as wandb reports an interrupted process; 1 for every other status."""
TAKES_RUNS: dict[str, bool] = {}
"""By server, whether it took the last run of this process; one that did not would only delay the cells of a sweep."""
FIRST_ATTEMPT = threading.Lock()
"""Held while this is not known yet."""


@tracker(name="wandb")
class WandbTracker:
    """A W&B run, live: config and facts, scalars and previews per step, samples, metrics, pictures, plan, plugins.

    Args:
        project: W&B project.
        entity: user or team; None for the account's default.
        mode: ``auto``, ``online``, ``offline`` or ``disabled``. The environment variable WANDB_MODE takes precedence.

    Raises:
        InputError: unknown ``mode``, or a name of a project that W&B refuses.
    """

    def __init__(self, *, project: str = "diffexp", entity: str | None = None, mode: str = "auto") -> None:
        if mode not in MODES:
            raise InputError(f"tracker.mode={mode}: choose one of {', '.join(MODES)}")
        if not 0 < len(project) <= MAX_NAME or REFUSED & {*project}:
            raise InputError(f"tracker.project={project}: W&B takes 1 to {MAX_NAME} characters, none of /\\#?%:")
        self.project = project
        self.entity = entity
        self.mode = mode
        self._run: wandb.Run | None = None
        self._facts: dict[str, Any] = {}
        self._shown: set[int] = set()
        """Indices of the samples whose images were logged."""
        self._known = 0
        """Samples that an earlier attempt at the run logged."""
        self._defined: set[str] = set()

    @property
    def run_id(self) -> str | None:
        return self._run.id if self._run else None

    @property
    def run(self) -> wandb.Run:
        if self._run is None:
            raise RuntimeError("the tracker has not been started")
        return self._run

    def start(self, info: RunInfo) -> None:
        self._folder = info.folder
        self._run = self._init(info)
        self._run.define_metric("steps/*", step_metric=STEP)
        if self._run.disabled:
            return
        self._known = int(self._run.summary.get(SAMPLES) or 0) if self._continues(info) else 0
        if not self._run.offline:
            log.info("W&B run: %s", self._run.url)
        elif not info.sweep:  # of the cells of a sweep there is one line at its end
            log.info("W&B offline: upload later with: wandb sync %s", Path(self._run.dir).parent)

    def log_step(self, step: int, values: dict[str, float]) -> None:
        self.run.log({STEP: step} | {f"steps/{name}": value for name, value in values.items()})

    def log_preview(self, step: int, image: Image.Image) -> None:
        # Beside the scalars of the steps, so that the panel has a slider over the same axis.
        self.run.log({STEP: step, "steps/x0": _image(image)})

    def log_images(self, key: str, paths: dict[str, Path]) -> None:
        # A panel each: images of one list must be of one size and of one kind.
        self.run.log({f"{key}/{caption}": _medium(path, caption) for caption, path in paths.items()})

    def log_batch(self, rows: Sequence[SampleRow], done: int) -> None:
        if done > self._known:  # of a run that is continued, the server has them
            self._log_shown(rows, done)

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        for name in values.keys() - self._defined:
            self.run.define_metric(name, step_metric=SAMPLES)
        self._defined |= values.keys()
        self.run.log({SAMPLES: samples, **values})

    def log_facts(self, facts: Mapping[str, Any]) -> None:
        self._facts |= facts
        self.run.config.update({"facts": self._facts}, allow_val_change=True)

    def log_samples(self, rows: Sequence[SampleRow]) -> None:
        import wandb

        table = wandb.Table(columns=["index", "caption", "seed", "file"])  # the images themselves are in ``samples``
        for row in rows[:MAX_ROWS]:
            table.add_data(row.index, row.caption, row.seed, row.path.name if row.path else None)
        self.run.log({"samples_table": table})
        self._log_shown([row for row in rows[:MAX_IMAGES] if row.index not in self._shown], len(rows))

    def log_files(self, name: str, files: Mapping[str, Path]) -> None:
        import wandb

        if not (self.run.offline or self.run.disabled or reachable(server().geturl(), PROBE_SECONDS)):
            # wandb asks the server about every artifact, and repeats that for a minute and a half.
            raise ConnectionError(f"the server cannot be reached; {', '.join(files)} stays in the run folder")
        # One collection for all runs: equal files are one version of it, which those runs share.
        artifact = wandb.Artifact(name, type="code" if name == "plugins" else name)
        for path, file in files.items():
            artifact.add_file(str(file), name=path)
        self.run.log_artifact(artifact)

    def log_media(self, files: Mapping[str, Path]) -> None:
        # A panel each: of a list of sounds wandb computes durations, for which it needs another package.
        self.run.log({f"media/{caption}": _medium(path, caption) for caption, path in files.items()})

    def finish(self, summary: dict[str, float], status: str) -> None:
        try:
            self.run.summary.update({**summary, "status": status})
        finally:
            try:
                self.run.finish(exit_code=EXIT_CODES.get(status, 1))
            except TimeoutError:
                TAKES_RUNS[server().netloc] = False
                here = Path(self.run.dir).parent
                log.warning("W&B has not received all of the run in time; upload the rest with: wandb sync %s", here)

    def compare(self, comparison: Comparison) -> None:
        """Log a run of its own in the sweep's group: results, charts, images, the report and its tables."""
        import wandb

        self.start(comparison.info)
        images = [(row, value) for row in comparison.rows for value in row if isinstance(value, Path)]
        shown = [number for number, name in enumerate(comparison.columns) if name != PICTURES]
        table = wandb.Table(columns=[comparison.columns[number] for number in shown])
        for row in comparison.rows:
            table.add_data(*(row[number] for number in shown))
        charts = {
            f"charts/{curves.title}": wandb.plot.line_series(
                curves.xs, curves.ys, keys=curves.names, title=curves.title, xname=curves.x_name
            )
            for curves in comparison.curves
        }
        # Beside the artifact, so that the page is visible without a click, and is in the folder of an offline run.
        page = wandb.Html(comparison.report.read_text(encoding="utf-8"), inject=False)
        self.run.log({"results": table, "report": page, **charts})
        if images:
            self.run.log({PICTURES: [_image(path, str(row[0])) for row, path in images[:MAX_IMAGES]]})
        artifact = wandb.Artifact(f"comparison-{self.run.id}", type="comparison")
        for file in comparison.files:
            artifact.add_file(str(file))
        self.run.log_artifact(artifact)
        if not (self.run.offline or self.run.disabled) and find_spec("wandb_workspaces"):
            save_workspace(self.run, comparison)
        self.finish({"cells": len(comparison.rows)}, "done")

    @staticmethod
    def sync_command(folder: Path) -> str | None:
        """``wandb sync`` of all runs below a folder that were logged offline."""
        patterns = ("wandb/offline-run-*", "*/wandb/offline-run-*")
        found = [pattern for pattern in patterns if any(folder.glob(pattern))]
        places = [f"{shlex.quote(str(folder))}/{pattern}" for pattern in found]
        return " ".join(["wandb sync", *places]) if places else None

    def _log_shown(self, rows: Sequence[SampleRow], done: int) -> None:
        shown: list[wandb.Image] = []
        for row in rows:
            source = row.path or (row.load() if row.load else None)
            if source and len(self._shown) < MAX_IMAGES:
                self._shown.add(row.index)
                shown.append(_image(source, f"{row.index}: {row.caption}"))
        if shown:
            self.run.log({SAMPLES: done, "samples": shown})

    def _continues(self, info: RunInfo) -> bool:
        """Whether the run goes on with one that the server knows."""
        return bool(info.earlier_id) and any(info.folder.glob(f"wandb/run-*-{info.earlier_id}"))

    def _init(self, info: RunInfo) -> wandb.Run:
        """Start a run in the chosen mode, or offline where the server takes no runs."""
        mode, host = choose_mode(self.mode), server().netloc
        self._facts = dict(info.facts)
        info = info if self._continues(info) else replace(info, earlier_id=None)
        start = partial(init_run, self.project, self.entity, info)
        if mode != "online":
            return start(mode)
        # Of cells that start together, the first finds out for all whether the server takes runs.
        with nullcontext() if host in TAKES_RUNS else FIRST_ATTEMPT:
            if TAKES_RUNS.get(host, True):
                try:
                    run = start(mode)
                except Exception as error:
                    reason = str(error).partition("\n")[0] or type(error).__name__
                    log.warning("W&B cannot be reached or refuses the key, logging offline: %s", reason)
                    TAKES_RUNS[host] = False
                else:
                    TAKES_RUNS[host] = True
                    return run
        return start("offline")


def init_run(project: str, entity: str | None, info: RunInfo, mode: str) -> wandb.Run:
    """Call ``wandb.init``."""
    # Imported here, so that a broken installation ends no run either.
    import wandb

    settings: dict[str, Any] = {"silent": True, "console": "off", "finish_timeout_raises": True}
    if "WANDB_FINISH_TIMEOUT" not in os.environ:
        settings["finish_timeout"] = FINISH_SECONDS
    if "WANDB_INIT_TIMEOUT" not in os.environ:
        settings["init_timeout"] = INIT_SECONDS
    return wandb.init(
        project=project,
        entity=entity,
        dir=info.folder,
        config={**info.config, "facts": dict(info.facts)} if info.facts else info.config,
        name=info.name[:MAX_NAME],
        group=info.group[-MAX_NAME:] if info.group else None,
        job_type=info.job_type,
        tags=info.tags,
        notes=info.notes,
        mode=mode,  # pyright: ignore[reportArgumentType]  (WANDB_MODE may also be one of wandb's older names)
        # Runs of a sweep live in one process, perhaps at once, perhaps beside a run of the caller's own.
        reinit="create_new",
        id=info.earlier_id if mode == "online" else None,
        resume="allow" if info.earlier_id and mode == "online" else None,
        settings=wandb.Settings(**settings),
    )


def _image(source: Path | Image.Image, caption: str | None = None) -> wandb.Image:
    import wandb

    return wandb.Image(str(source) if isinstance(source, Path) else source, caption=caption)


def _medium(path: Path, caption: str) -> wandb.Image | wandb.Video | wandb.Audio:
    import wandb

    if path.suffix == ".wav":
        return wandb.Audio(str(path), caption=caption)
    if path.suffix in (".gif", ".mp4"):
        return wandb.Video(str(path), caption=caption, format="gif" if path.suffix == ".gif" else "mp4")
    return _image(path, caption)
