"""What Python gets of a run: its images, samples, config, metrics and plan, read from its folder when asked for."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self, overload

from markupsafe import Markup
from PIL import Image
from torch import Tensor

from diffexp.components.pixels import pixels_to_image
from diffexp.errors import InputError
from diffexp.experiment.media_files import all_media
from diffexp.experiment.sample_files import SAMPLES_DIR, read_samples
from diffexp.experiment.stores.images import StoredImages
from diffexp.experiment.summary import HIGH, LOW, metrics_line, read_metrics
from diffexp.files import read_json
from diffexp.plan.table import Plan

PREVIEW_PIXELS = 480
"""Largest side of the grid in a notebook."""
MISSING = "missing"
"""Status of a run that has not begun."""


class Images(Sequence[Image.Image]):
    """The images of a run in the order of their indices, each read from disk on access."""

    def __init__(self, stored: StoredImages, indices: Sequence[int] | None = None) -> None:
        self._stored = stored
        self._indices = list(stored) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(self._stored, self._indices[index])
        return pixels_to_image(self._stored.pixels([self._indices[index]])[0])

    def __repr__(self) -> str:
        return f"<{len(self)} images>"


@dataclass(frozen=True)
class RunResult:
    """A run: in a notebook its grid and its metrics, everything else as attributes.

    Example:
        >>> import diffexp
        >>> result = diffexp.run(scheduler="ddim", steps=10)  # doctest: +SKIP
        >>> result.metrics["fid/mnist_cnn"], result.images[0].size  # doctest: +SKIP
    """

    folder: Path
    status: str
    """``done``, ``failed``, ``interrupted``, ``running``, or ``missing`` of a cell that has not begun."""
    metrics: dict[str, float] = field(default_factory=dict)
    """As in ``metrics.json``: ``{"nfe": 10, "fid/mnist_cnn": 3.1, "fid/mnist_cnn/low": 2.8, ...}``."""
    compiled: Plan | None = field(default=None, repr=False, compare=False)
    """The plan, where this process has compiled it."""

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """The run in a folder, also one that another process has made, or that has not ended."""
        place = Path(folder).expanduser()
        metrics = {name: value for name, value in read_metrics(place).items() if value is not None}
        return cls(place, str(read_json(place / "run.json").get("status", MISSING)), metrics)

    @property
    def record(self) -> Mapping[str, Any]:
        """The content of ``run.json``: command, versions, hashes, ...; empty where there is none."""
        return read_json(self.folder / "run.json")

    @property
    def config(self) -> Mapping[str, Any]:
        """The composed config, nested: ``config["scheduler"]["eta"]``."""
        return self.record.get("config") or {}

    @property
    def error(self) -> str | None:
        """Why the run has failed."""
        return self.record.get("error")

    @property
    def samples(self) -> Mapping[int, Tensor]:
        """The samples by index: images (C, H, W) in [0, 1], read one at a time, or points (d,).

        Raises:
            InputError: there are none.
        """
        return read_samples(self.folder)

    @property
    def images(self) -> Images:
        """The samples as PIL images, a sequence; empty for a model of points."""
        samples = self.samples
        return Images(samples if isinstance(samples, StoredImages) else StoredImages({}))

    @property
    def media(self) -> Mapping[int, Path]:
        """The videos (MP4 where ffmpeg was there, else GIF) or sounds (WAV) by index; empty where samples are images.

        ``images`` then has their strips of frames, or spectrograms.
        """
        return all_media(self.folder / SAMPLES_DIR)

    @cached_property
    def plan(self) -> Plan | None:
        """The scheduler as a table of numbers; None where it was run directly, or the run has not begun.

        Raises:
            InputError: it was compiled by another process, and what its config names is not here or has changed.
        """
        sha256 = self.record.get("plan_sha256")
        return self.compiled or (_compiled_again(self.config, sha256, self.folder) if sha256 else None)

    def __repr__(self) -> str:
        shown = f": {line}" if (line := metrics_line(self.metrics)) else f": {self.error}" if self.error else ""
        return f"<RunResult {self.status}, {self.folder}{shown}>"

    def _repr_html_(self) -> str:
        """The run in a notebook, in the colours of the notebook."""
        rows = [
            Markup('<tr><th style="text-align:left">{}</th><td>{}</td><td style="opacity:.7">{}</td></tr>').format(*row)
            for row in metric_rows(self.metrics)
        ]
        parts = [
            Markup("<div><b>{}</b> · {} · <code>{}</code></div>").format(title_of(self), self.status, self.folder),
            Markup('<div style="color:#c22f4a">{}</div>').format(self.error) if self.error else "",
            preview(self.folder / "grid.png"),
            Markup("<table>{}</table>").format(Markup("").join(rows)) if rows else "",
        ]
        return str(Markup('<div class="diffexp">{}</div>').format(Markup("").join(parts)))


def title_of(result: RunResult) -> str:
    """``mnist · ddim · 10 steps``, as far as it is known."""
    config = result.config
    names = [str((config.get(kind) or {}).get("name", "")) for kind in ("model", "scheduler")]
    return " · ".join([name for name in names if name] + ([f"{config['steps']} steps"] if "steps" in config else []))


def metric_rows(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Name, value and 95 % interval of each metric, as text."""
    rows = []
    for name, value in metrics.items():
        if name.endswith((LOW, HIGH)) and name.rpartition("/")[0] in metrics:
            continue
        low, high = metrics.get(f"{name}{LOW}"), metrics.get(f"{name}{HIGH}")
        interval = "" if low is None or high is None else f"{low:.4g} to {high:.4g}"
        rows.append((name, f"{value:.5g}", interval))
    return rows


def preview(file: Path) -> Markup:
    """A picture inside HTML, made smaller where it is large; nothing where there is none."""
    try:
        with Image.open(file) as image:
            small = image.convert("RGB")
    except OSError:
        return Markup("")
    small.thumbnail((PREVIEW_PIXELS, PREVIEW_PIXELS))
    out = io.BytesIO()
    small.save(out, "PNG")
    content = base64.b64encode(out.getvalue()).decode()
    return Markup('<img alt="samples" style="max-width:100%" src="data:image/png;base64,{}">').format(content)


def _compiled_again(config: Mapping[str, Any], sha256: str, folder: Path) -> Plan:
    from diffexp.catalog.discover import discover
    from diffexp.experiment.build import assemble  # seconds to import

    bare = {**config, "metric": {}, "tracker": {"name": "none"}, "device": "cpu", "compile": False}
    sampler = assemble(bare, discover()).sampler
    if not isinstance(sampler, Plan) or sampler.sha256 != sha256:
        raise InputError(f"{folder}: its plan cannot be compiled again, the code has changed; its plan.csv has it")
    return sampler
