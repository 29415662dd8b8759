"""Weights & Biases: online if the user is logged in, otherwise offline, without a prompt or a delay."""

from __future__ import annotations

import logging
import netrc
import os
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from diffexp import tracker
from diffexp.components.checkpoints.network import reachable
from diffexp.components.trackers.base import Comparison, RunInfo, SampleRow
from diffexp.errors import InputError

if TYPE_CHECKING:
    import wandb
    from PIL import Image

log = logging.getLogger(__name__)

MODES = ("auto", "online", "offline", "disabled")
PROBE_SECONDS = 2.0
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
EXIT_CODES = {"done": 0, "interrupted": 255}
"""Exit codes of a W&B run by status, as wandb reports an interrupted process; 1 for every other status."""
TAKES_RUNS: dict[str, bool] = {}
"""By server, whether it took the last run of this process; one that did not would only delay the cells of a sweep."""
FIRST_ATTEMPT = threading.Lock()
"""Held while this is not known yet."""


@tracker(name="wandb")
class WandbTracker:
    """A W&B run beside the run folder: config, scalars per step, snapshots, grid, a table of 1,000 samples, metrics.

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

    @property
    def run_id(self) -> str | None:
        return self._run.id if self._run else None

    @property
    def run(self) -> wandb.Run:
        if self._run is None:
            raise RuntimeError("the tracker has not been started")
        return self._run

    def start(self, info: RunInfo) -> None:
        self._run = self._init(info)
        self._run.define_metric("steps/*", step_metric=STEP)
        if self._run.disabled:
            return
        if self._run.offline:
            log.info("W&B offline: upload later with: wandb sync %s", Path(self._run.dir).parent)
        else:
            log.info("W&B run: %s", self._run.url)

    def log_step(self, step: int, values: dict[str, float]) -> None:
        self.run.log({STEP: step} | {f"steps/{name}": value for name, value in values.items()})

    def log_images(self, key: str, paths: dict[str, Path]) -> None:
        # A panel each: images of one list must be of one size and of one kind.
        self.run.log({f"{key}/{caption}": _medium(path, caption) for caption, path in paths.items()})

    def log_samples(self, rows: Sequence[SampleRow]) -> None:
        import wandb

        table = wandb.Table(columns=["index", "caption", "seed", "image"])
        shown: list[wandb.Image] = []
        for row in rows[:MAX_ROWS]:
            source = row.path or (row.load() if row.load else None)
            table.add_data(row.index, row.caption, row.seed, _image(source) if source else None)
            if source and len(shown) < MAX_IMAGES:
                shown.append(_image(source, f"{row.index}: {row.caption}"))
        self.run.log({"samples_table": table})
        # Offline, the images of a table are staged outside the run folder until they are uploaded: log them here too.
        if shown:
            self.run.log({"samples": shown})

    def finish(self, summary: dict[str, float], status: str) -> None:
        try:
            self.run.summary.update({**summary, "status": status})
        finally:
            self.run.finish(exit_code=EXIT_CODES.get(status, 1))

    def compare(self, comparison: Comparison) -> None:
        """Log a run of its own in the sweep's group: results with images, charts, the report and its tables."""
        import wandb

        self.start(comparison.info)
        table = wandb.Table(columns=list(comparison.columns))
        for row in comparison.rows:
            table.add_data(*(_image(value) if isinstance(value, Path) else value for value in row))
        images = [(row, value) for row in comparison.rows for value in row if isinstance(value, Path)]
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
            self.run.log({"pictures": [_image(path, str(row[0])) for row, path in images[:MAX_IMAGES]]})
        artifact = wandb.Artifact(f"comparison-{self.run.id}", type="comparison")
        for file in comparison.files:
            artifact.add_file(str(file))
        self.run.log_artifact(artifact)
        self.finish({"cells": len(comparison.rows)}, "done")

    def _init(self, info: RunInfo) -> wandb.Run:
        """Start a run in the chosen mode, or offline where the server takes no runs."""
        mode, host = choose_mode(self.mode), server().netloc
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

    settings: dict[str, Any] = {"silent": True, "console": "off"}  # ``start`` logs where the run is
    if "WANDB_INIT_TIMEOUT" not in os.environ:
        settings["init_timeout"] = INIT_SECONDS
    return wandb.init(
        project=project,
        entity=entity,
        dir=info.folder,
        config=info.config,
        name=info.name[:MAX_NAME],
        group=info.group[-MAX_NAME:] if info.group else None,  # the end of a folder's path distinguishes sweeps
        job_type=info.job_type,
        tags=info.tags,
        notes=info.notes,
        mode=mode,  # pyright: ignore[reportArgumentType]  (WANDB_MODE may also be one of wandb's older names)
        # Runs of a sweep live in one process, perhaps at once, perhaps beside a run of the caller's own.
        reinit="create_new",
        settings=wandb.Settings(**settings),
    )


def choose_mode(requested: str) -> str:
    """The mode for ``wandb.init``, determined in advance so that it neither prompts nor waits for a missing network.

    WANDB_MODE takes precedence, then an explicit ``requested``; ``auto`` is online with credentials and a network.
    """
    mode = os.environ.get("WANDB_MODE") or requested
    if mode not in ("auto", "online"):
        return mode
    host = server()
    if not _has_credentials(host.netloc):
        if mode == "online":
            log.warning("W&B mode=online, but there is no API key for %s: logging offline", host.netloc)
        return "offline"
    if mode == "auto" and not server_reachable(host.geturl()):
        log.warning("W&B: %s cannot be reached, logging offline", host.netloc)
        return "offline"
    return "online"


def server() -> SplitResult:
    """The address of the W&B server, which WANDB_BASE_URL may override."""
    return urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")


def _has_credentials(host: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    places = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    for place in places:
        path = Path(place).expanduser() if place else None
        if path is None or not path.is_file():
            continue
        try:
            found = netrc.netrc(path).authenticators(host)
        except (netrc.NetrcParseError, OSError):
            continue
        if found and found[2]:
            return True
    return False


@cache
def server_reachable(url: str) -> bool:
    """Whether the server accepts connections; probed once per process."""
    return reachable(url, PROBE_SECONDS)


def _image(source: Path | Image.Image, caption: str | None = None) -> wandb.Image:
    import wandb

    return wandb.Image(str(source) if isinstance(source, Path) else source, caption=caption)


def _medium(path: Path, caption: str) -> wandb.Image | wandb.Video:
    import wandb

    return wandb.Video(str(path), caption=caption, format="gif") if path.suffix == ".gif" else _image(path, caption)
