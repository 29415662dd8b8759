"""One run, from a composed config to files, metrics and a tracked record."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffexp.assembly import Parts, assemble
from diffexp.discovery import Catalog
from diffexp.drawing import Drawing, draw_samples
from diffexp.errors import InputError
from diffexp.measure import facts_of
from diffexp.meters import Meters
from diffexp.noise import sample_seed
from diffexp.outputs import RunFolder, overview
from diffexp.plan import Plan
from diffexp.resume import check_resume, earlier_samples
from diffexp.tracking.base import RunInfo, SampleRow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepInfo:
    """What a run knows of the multirun it belongs to."""

    folder: Path
    job: int


@dataclass(frozen=True)
class RunResult:
    """What a finished run left behind."""

    folder: Path
    status: str
    metrics: dict[str, float] = field(default_factory=dict)


def run_experiment(
    config: Mapping[str, Any], folder: Path, catalog: Catalog, sweep: SweepInfo | None = None
) -> RunResult:
    """Run one experiment; everything it computed is on disk however it ends.

    Raises:
        InputError: the config asks for something impossible.
        KeyboardInterrupt: after what was finished has been written.
    """
    output, began = RunFolder(folder), time.perf_counter()
    check_resume(config, folder)
    output.begin(config)
    log.info("%s", _announcement(config))
    tracker = None
    try:
        parts = assemble(config, catalog)
        plan = parts.sampler if isinstance(parts.sampler, Plan) else None
        output.update(
            device=str(parts.model.device),
            dtype=str(parts.model.dtype).removeprefix("torch."),
            model_id=parts.model.id,
            weights_sha256=parts.model.weights_sha256,
            plan_sha256=plan.sha256 if plan else None,
        )
        done = earlier_samples(output)
        if plan:
            output.save_plan(plan)
        tracker = parts.tracker
        tracker.start(_run_info(config, folder, sweep))
        output.update(wandb_id=tracker.run_id)
        meters = Meters(parts.metrics, parts.model)
        drawing = draw_samples(parts, config, output, done, meters)
        metrics = meters.compute(facts_of(parts, drawing)) if drawing.indices else {}
        output.save_metrics(metrics)
        _show(parts, config, output, drawing)
        status = "interrupted" if drawing.interrupted else "done"
        output.update(status=status, nfe=drawing.nfe, seconds=time.perf_counter() - began)
        tracker.finish(metrics, status)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        status, told = ("interrupted", None) if interrupted else ("failed", _one_line(error))
        output.update(status=status, error=told, seconds=time.perf_counter() - began)
        if tracker:
            tracker.finish({}, status)
        raise
    if drawing.interrupted:
        raise KeyboardInterrupt
    log.info("%s", _summary(folder, metrics))
    return RunResult(folder, status, metrics=metrics)


def _show(parts: Parts, config: Mapping[str, Any], output: RunFolder, drawing: Drawing) -> None:
    """The run's pictures, as files and for the tracker."""
    tracker, model = parts.tracker, parts.model
    if not drawing.indices:
        return
    title = f"{model.id} · {_scheduler_name(config)} · {drawing.nfe} evaluations"
    output.save_grid(overview(drawing.shown(), drawing.captions, drawing.truth(), title))
    if drawing.snapshots:
        output.save_trajectory(drawing.snapshots, title, drawing.captions)
    for step, values in drawing.steps:
        tracker.log_step(step, values)
    pictures = {"grid": "grid.png", "trajectory": "trajectory.png", "animation": "trajectory.gif"}
    tracker.log_images("pictures", {k: p for k, n in pictures.items() if (p := output.folder / n).is_file()})
    paths = output.finished_images()
    seed = int(config["seed"])
    tracker.log_samples(
        [SampleRow(i, c, sample_seed(seed, i), paths.get(i)) for i, c in zip(drawing.indices, drawing.captions)]
    )


def _run_info(config: Mapping[str, Any], folder: Path, sweep: SweepInfo | None) -> RunInfo:
    return RunInfo(
        folder=folder,
        config=dict(config),
        name=config["name"] or f"{config['model']['name']}_{_scheduler_name(config)}_{config['steps']}",
        group=str(sweep.folder) if sweep else None,
        job_type="cell" if sweep else "run",
        tags=list(config["tags"] or []),
        notes=config["notes"],
        sweep=sweep is not None,
    )


def _scheduler_name(config: Mapping[str, Any]) -> str:
    node = config["scheduler"]
    return str(node.get("_target_") or node["name"]).rpartition(".")[2]


def _announcement(config: Mapping[str, Any]) -> str:
    what = f"{config['model']['name']} · {_scheduler_name(config)}"
    return f"{what} · {config['steps']} steps · {config['num_samples']} samples"


def _summary(folder: Path, metrics: Mapping[str, float]) -> str:
    shown = "  ".join(f"{name}={value:.4g}" for name, value in metrics.items())
    return f"{folder}\n{shown}"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}".rstrip(": ")
