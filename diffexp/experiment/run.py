"""One run, from a composed config to files, metrics and a tracked record."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from diffexp.catalog.discover import Catalog
from diffexp.components.media import media_of
from diffexp.components.models.truth import true_samples
from diffexp.experiment.build import Components, assemble
from diffexp.experiment.context import RunContext
from diffexp.experiment.cost import reset_peak_memory, run_facts
from diffexp.experiment.effects import Given, check_effects, check_seed
from diffexp.experiment.folder import RunFolder
from diffexp.experiment.identity import identity_of
from diffexp.experiment.learned_for import warn_of_other_conditions
from diffexp.experiment.lock import lock_unless_held
from diffexp.experiment.metric_suite import MetricSuite
from diffexp.experiment.parts import read_division
from diffexp.experiment.pictures.grid import overview
from diffexp.experiment.plugin_sources import save_plugins
from diffexp.experiment.recording import recording
from diffexp.experiment.reference import Reference
from diffexp.experiment.result import RunResult
from diffexp.experiment.resume import Earlier, check_same_samples, is_continued, read_earlier, run_to_resume
from diffexp.experiment.rounds import WAITING, Round, samples_of
from diffexp.experiment.samples import Samples
from diffexp.experiment.sampling import generate, load_samples
from diffexp.experiment.summary import lacking, metrics_line
from diffexp.experiment.tracking import choice_of, publish, run_info
from diffexp.plan.table import Plan
from diffexp.text import quantity

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepInfo:
    """The sweep that a run belongs to."""

    folder: Path
    job: int
    resumed: bool = False
    """Whether the run continues what an earlier attempt at the sweep left in its folder."""
    swept: Collection[str] = ()
    """The keys that the sweep varies, as far as they are known beforehand."""
    round: Round | None = None
    """How far the run is drawn now; None: to its end."""


def run_experiment(
    config: Mapping[str, Any],
    folder: Path,
    catalog: Catalog,
    sweep: SweepInfo | None = None,
    context: RunContext | None = None,
) -> RunResult:
    """Run one experiment; everything it computed is on disk however it ends.

    Args:
        context: services of the process; by default the run has the process to itself.

    Raises:
        InputError: the config requests something impossible.
        KeyboardInterrupt: after everything finished has been written.
    """
    context, output = context or RunContext(), RunFolder(folder, is_cell=sweep is not None)
    given = Given.of(output.words, config, swept=sweep.swept if sweep else None)
    with lock_unless_held(folder), recording(output, catalog, context.clock) as record:
        own = is_continued(config, folder, divided=context.divided or read_division(folder) is not None)
        earlier = _open(output, config, sweep, resumed=own or context.resumed)
        goes_on = bool(sweep and sweep.round and not sweep.round.final)
        log.info("%s", _announcement(config, output))
        run = _build_and_check({**config, "tracker": {}} if goes_on else config, catalog, context, output, earlier)
        with context.cpu_section():
            check_effects(run, config, given, catalog)
            warn_of_other_conditions(run, config)
        record.live = run.live
        _start_trackers(run, config, output, sweep, earlier)
        samples, metrics = _sample_and_measure(run, config, output)
        publish(run, config, output, samples)
        output.note(nfe=samples.nfe, forward_passes=samples.forward_passes)
        check_seed(samples.drew_noise, given)
        shown = metrics | lacking(metrics, len(samples.indices), catalog)
        record.metrics, record.status = shown, WAITING if goes_on else "done"
        if samples.interrupted:
            raise KeyboardInterrupt
    log.info("%s\n%s", folder, metrics_line(shown))
    return RunResult(folder, record.status, metrics, run.sampler if isinstance(run.sampler, Plan) else None)


def _open(output: RunFolder, config: Mapping[str, Any], sweep: SweepInfo | None, *, resumed: bool) -> Earlier | None:
    """Begin the record of the run; return the run that this one continues in its folder, if any."""
    earlier = read_earlier(output.folder) if resumed or (sweep and sweep.resumed) else None
    if earlier:
        check_same_samples(earlier, {"config": config})
        output.reopen(earlier.record, config)
    else:
        output.begin(config)
    if sweep and sweep.round:
        output.note(**sweep.round.entry)
    return earlier


def _build_and_check(
    config: Mapping[str, Any], catalog: Catalog, context: RunContext, output: RunFolder, earlier: Earlier | None
) -> Components:
    """Build the components; check that they give the samples of the runs that this one resumes, and copy those.

    Only then are the files of an earlier run in the folder removed.
    """
    with context.cpu_section():
        run = assemble(config, catalog, context)
    plan = run.sampler if isinstance(run.sampler, Plan) else None
    identity = identity_of(run, config, catalog) | {"plugins": save_plugins(output.folder, config, catalog)}
    named = run_to_resume(config, output.folder)
    for known in (earlier, named):
        if known:
            check_same_samples(known, output.record | identity)
    output.replace()
    output.note(**identity)
    if media := media_of(run.model):
        output.note(media=asdict(media))
    if named:
        copied = output.copy_samples(RunFolder(named.folder))
        log.info("%d of %d samples copied from %s", copied, samples_of(output.record), named.folder)
    if plan:
        output.save_plan(plan)
    return run


def _start_trackers(
    run: Components, config: Mapping[str, Any], output: RunFolder, sweep: SweepInfo | None, earlier: Earlier | None
) -> None:
    known = (earlier.record.get("tracker_ids") if earlier else None) or {}
    group, swept = (sweep.folder, sweep.swept) if sweep else (None, ())
    run.tracker.start(run_info(run, config, output, group, swept, known))
    if ids := run.tracker.run_ids:
        output.update(tracker_ids=ids, wandb_id=ids.get("wandb", next(iter(ids.values()))))


def _sample_and_measure(
    run: Components, config: Mapping[str, Any], output: RunFolder
) -> tuple[Samples, dict[str, float]]:
    """Generate all samples, measure them and write everything; copy it where another run has done just that."""
    if duplicate := run.context.find_duplicate(output.record):
        log.info("same samples as %s, copied from there", duplicate.name)
        metrics = output.copy_results(RunFolder(duplicate))
        return load_samples(run, config, output), metrics
    suite = MetricSuite(run.metrics, run.model, Reference(run, config), in_sweep=output.is_cell)
    if (now := Round.of(output.record)) and not now.final:
        suite.postpone_others(now.metrics)
    reset_peak_memory(run.model.device)
    samples = generate(run, config, output, suite)
    with run.context.cpu_section():
        metrics: dict[str, float] = {}
        if samples.indices:
            metrics = suite.compute(replace(run_facts(run, samples), few_on_purpose=_is_short(output)))
        output.save_metrics(metrics)
        suite.write(output.folder)
        _save_images(run, config, output, samples)
    return samples, metrics


def _is_short(output: RunFolder) -> bool:
    """Whether the run draws fewer samples than its config says, because a comparison takes no more."""
    return samples_of(output.record) < int(output.record["config"]["num_samples"])


def _save_images(run: Components, config: Mapping[str, Any], output: RunFolder, samples: Samples) -> None:
    if samples.shown is None:
        return
    cost = f"{samples.nfe} evaluations"
    if samples.forward_passes not in (None, samples.nfe):
        cost += f", {samples.forward_passes:g} forward passes"
    title = f"{run.model.id} · {choice_of(config['scheduler'])} · {cost}"
    truth = true_samples(run.model, len(samples.indices)) if samples.shown.ndim == 2 else None
    output.save_grid(overview(samples.shown, samples.captions, truth, title))
    if samples.snapshots:
        output.save_trajectory(samples.snapshots, title, samples.captions)


def _announcement(config: Mapping[str, Any], output: RunFolder) -> str:
    names = f"{config['model']['name']} · {choice_of(config['scheduler'])}"
    budgets = {"max_nfe": "evaluations", "max_forward_passes": "forward passes"}
    limits = [f"at most {most} {noun}" for key, noun in budgets.items() if (most := config.get(key)) is not None]
    sizes = limits or [quantity(config["steps"], "step")]
    return " · ".join([names, *sizes, quantity(samples_of(output.record), "sample")])
