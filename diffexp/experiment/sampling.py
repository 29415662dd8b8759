"""Sampling of a whole run, batch by batch; a batch is written while the next one is drawn."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from diffexp.components.metrics.base import Finished
from diffexp.experiment.batches import Drawing, batch_size
from diffexp.experiment.build import Components
from diffexp.experiment.collected import BatchWriter, Collected, warn_of_broken, warn_of_interrupt
from diffexp.experiment.folder import RunFolder
from diffexp.experiment.metric_suite import MetricSuite
from diffexp.experiment.parts import read_division
from diffexp.experiment.pictures.previews import latents_to_rgb
from diffexp.experiment.rounds import samples_of
from diffexp.experiment.sample_files import shape_on_disk
from diffexp.experiment.samples import Samples
from diffexp.experiment.shared import draw_with_others
from diffexp.experiment.tally import Tally


def generate(run: Components, config: Mapping[str, Any], output: RunFolder, suite: MetricSuite) -> Samples:
    """Sample 0..num_samples-1 except what the folder already has; Ctrl-C keeps the finished batches.

    A finished batch is written at once; the run's memory does not grow with its length. Other processes draw some of
    them where the context of the run lets them.
    """
    size = batch_size(run, config)
    several = samples_of(output.record) > size
    if (run.context.divided and several) or read_division(output.folder):
        return draw_with_others(run, config, output, suite, size)
    return _draw_all(run, config, output, suite, size)


def load_samples(run: Components, config: Mapping[str, Any], output: RunFolder) -> Samples:
    """The samples of a run whose folder has all of them."""
    collected = Collected(run, output, MetricSuite({}, run.model))
    collected.load(int(config["batch_size"]))
    record = output.record
    return collected.samples(Tally.of(record), record["nfe"] or 0, record.get("forward_passes"))


def _draw_all(run: Components, config: Mapping[str, Any], output: RunFolder, suite: MetricSuite, size: int) -> Samples:
    """Draw all samples in this process; a finished batch is measured, and the next drawn, while it is written."""
    total = samples_of(output.record)
    collected, writer = Collected(run, output, suite), BatchWriter(run, output)
    collected.load(size)
    todo = sorted(set(range(total)).difference(collected.indices))
    drawing = Drawing.of(run, config, size, -(-len(todo) // size))
    monitor = drawing.monitor
    monitor.tally += Tally.of(output.record)
    interrupted, files = False, run.context.writer()

    def write(indices: Sequence[int], batch: Finished, raw: bool, record: Mapping[str, Any]) -> None:
        writer.save(indices, batch, raw=raw)
        output.update(**record)  # once they are on disk
        run.context.finished(len(indices))

    try:
        for batch, samples in drawing.batches(todo):
            indices, finished = batch.indices, writer.decode(batch.indices, samples, batch.condition)
            record = monitor.record() | {"image_shape": shape_on_disk(finished.images)}
            files.write(partial(write, indices, finished, suite.reads_samples, record))
            # At once: an interrupt may follow.
            collected.add(indices, run.model.describe(batch.condition), finished.images)
            collected.measure(indices, finished)
            collected.log_metrics(monitor.tally, monitor.nfe)
        files.wait()
    except KeyboardInterrupt:
        files.wait()
        warn_of_interrupt(output, len(collected.indices), total)
        interrupted = True
    finally:
        monitor.close()
        files.close()
        output.join_points()
    if not interrupted:
        output.images.join()
    warn_of_broken(writer.broken, len(todo))
    record = monitor.record()
    if not todo:  # the samples are those of an earlier run
        record |= {"nfe": output.record["nfe"] or monitor.nfe, "forward_passes": output.record.get("forward_passes")}
    return collected.samples(
        monitor.tally,
        record["nfe"] or 0,
        record["forward_passes"],
        snapshots=latents_to_rgb(monitor.snapshots, writer.first),
        interrupted=interrupted,
        drew_noise=drawing.drew_noise or interrupted or not todo,  # unknown where no batch was drawn
    )
