"""One run, from a composed config to files, metrics and a tracked record."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffexp.catalog.discover import Catalog
from diffexp.components.trackers.base import RunInfo, SampleRow
from diffexp.errors import InputError, one_line
from diffexp.experiment.build import Parts, assemble
from diffexp.experiment.context import RunContext
from diffexp.experiment.cost import run_facts
from diffexp.experiment.folder import RunFolder
from diffexp.experiment.metric_suite import MetricSuite
from diffexp.experiment.pictures.grid import overview
from diffexp.experiment.provenance import inputs_sha256
from diffexp.experiment.reference import Reference
from diffexp.experiment.resume import check_resume, check_same_samples, named_run, read_earlier
from diffexp.experiment.sampling import Drawing, draw_samples, load_existing
from diffexp.experiment.summary import metrics_line
from diffexp.plan.noise import sample_seed
from diffexp.plan.table import Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepInfo:
    """What a run knows of the multirun it belongs to."""

    folder: Path
    job: int
    resumed: bool = False
    """Whether what an earlier attempt at the sweep left is to be finished."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run left behind."""

    folder: Path
    status: str
    metrics: dict[str, float] = field(default_factory=dict)


def run_experiment(
    config: Mapping[str, Any],
    folder: Path,
    catalog: Catalog,
    sweep: SweepInfo | None = None,
    context: RunContext | None = None,
) -> RunResult:
    """Run one experiment; everything it computed is on disk however it ends.

    Args:
        context: where it takes place; by default it has the process to itself.

    Raises:
        InputError: the config asks for something impossible.
        KeyboardInterrupt: after what was finished has been written.
    """
    context = context or RunContext()
    output, began = RunFolder(folder), context.clock()
    check_resume(config, folder)
    earlier = read_earlier(folder) if sweep and sweep.resumed else None
    if earlier:
        check_same_samples(earlier, {"config": config})
        output.go_on(earlier.record, config)
    else:
        output.begin(config)
    log.info("%s", _announcement(config))
    tracker = None
    try:
        with context.cpu_section():
            parts = assemble(config, catalog, context)
        plan = parts.sampler if isinstance(parts.sampler, Plan) else None
        facts = {
            "device": str(parts.model.device),
            "dtype": str(parts.model.dtype).removeprefix("torch."),
            "model_id": parts.model.id,
            "weights_sha256": parts.model.weights_sha256,
            "plan_sha256": plan.sha256 if plan else None,
            "inputs_sha256": inputs_sha256(config),
        }
        named = named_run(config)
        for known in (earlier, named):
            if known:
                check_same_samples(known, output.record | facts)
        output.update(**facts)
        if named:
            taken = output.copy_samples(RunFolder(named.folder))
            log.info("%d of %d samples taken over from %s", taken, config["num_samples"], named.folder)
        if plan:
            output.save_plan(plan)
        tracker = parts.tracker
        tracker.start(_run_info(config, folder, sweep))
        output.update(wandb_id=tracker.run_id)
        twin = context.twin(output.record)
        drawing, metrics = _copy(twin, parts, config, output) if twin else _draw(parts, config, output)
        _track(parts, config, output, drawing)
        status = "interrupted" if drawing.interrupted else "done"
        output.update(status=status, nfe=drawing.nfe, seconds=context.clock() - began)
        if status == "done":
            output.forget_kept()
        tracker.finish(metrics, status)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        status, told = ("interrupted", None) if interrupted else ("failed", _told(error, catalog))
        output.update(status=status, error=told, seconds=context.clock() - began)
        if tracker:
            tracker.finish({}, status)
        raise
    if drawing.interrupted:
        raise KeyboardInterrupt
    log.info("%s\n%s", folder, metrics_line(metrics))
    return RunResult(folder, status, metrics=metrics)


def _draw(parts: Parts, config: Mapping[str, Any], output: RunFolder) -> tuple[Drawing, dict[str, float]]:
    """Draw all samples and measure them: the run's files, and its metrics."""
    suite = MetricSuite(parts.metrics, parts.model, Reference(parts, config))
    with parts.context.drawing(parts.model.device):
        drawing = draw_samples(parts, config, output, suite)
    with parts.context.cpu_section():
        metrics = suite.compute(run_facts(parts, drawing)) if drawing.indices else {}
        output.save_metrics(metrics)
        suite.write(output.folder)
        _save_pictures(parts, config, output, drawing)
    return drawing, metrics


def _copy(twin: Path, parts: Parts, config: Mapping[str, Any], output: RunFolder) -> tuple[Drawing, dict[str, float]]:
    """The same from the folder of a run that did just that."""
    log.info("the same samples as those of %s, taken over from there", twin.name)
    metrics = output.copy_results(RunFolder(twin))
    return load_existing(parts, config, output, MetricSuite({}, parts.model)), metrics


def _save_pictures(parts: Parts, config: Mapping[str, Any], output: RunFolder, drawing: Drawing) -> None:
    if not drawing.indices:
        return
    title = f"{parts.model.id} · {_scheduler_name(config)} · {drawing.nfe} evaluations"
    output.save_grid(overview(drawing.shown(), drawing.captions, drawing.truth(), title))
    if drawing.snapshots:
        output.save_trajectory(drawing.snapshots, title, drawing.captions)


def _track(parts: Parts, config: Mapping[str, Any], output: RunFolder, drawing: Drawing) -> None:
    """What was drawn, for the tracker."""
    tracker = parts.tracker
    if not drawing.indices:
        return
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
    choices = f"{config['model']['name']}_{_scheduler_name(config)}_{config['steps']}"
    return RunInfo(
        folder=folder,
        config=dict(config),
        name=config["name"] or (folder.name if sweep else choices),  # cells may differ in anything, and so do folders
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
    steps = f"{config['steps']} steps" if config.get("max_nfe") is None else f"at most {config['max_nfe']} evaluations"
    return f"{what} · {steps} · {config['num_samples']} samples"


def _told(error: BaseException, catalog: Catalog) -> str:
    """One line; where a plugin raised it, the error keeps a note of the place."""
    place = None if isinstance(error, InputError) else catalog.place_of(error)
    if place and place not in getattr(error, "__notes__", ()):  # an error may be that of several cells
        error.add_note(place)
    return one_line(error)
