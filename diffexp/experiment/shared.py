"""Sampling of a run by several processes: its owner, and helpers that draw parts and nothing else."""

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from diffexp.catalog.discover import Catalog
from diffexp.components.metrics.base import Finished
from diffexp.errors import InputError
from diffexp.experiment.batches import Drawing
from diffexp.experiment.build import Components, assemble
from diffexp.experiment.collected import BatchWriter, Collected, warn_of_broken, warn_of_interrupt
from diffexp.experiment.context import RunContext
from diffexp.experiment.cost import peak_memory_mb, reset_peak_memory
from diffexp.experiment.folder import RunFolder
from diffexp.experiment.identity import identity_of
from diffexp.experiment.image_text import sample_texts
from diffexp.experiment.lock import Watch
from diffexp.experiment.metric_suite import MetricSuite
from diffexp.experiment.parts import Division, Parts, Share, Worker, has_open_parts, read_division, sum_of, workers_of
from diffexp.experiment.pictures.previews import latents_to_rgb
from diffexp.experiment.recorded import whole_images
from diffexp.experiment.resume import check_same_samples, read_earlier
from diffexp.experiment.rounds import samples_of
from diffexp.experiment.sample_files import SampleFiles
from diffexp.experiment.samples import Samples
from diffexp.experiment.tally import Tally
from diffexp.files import read_json

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""How often an owner looks whether the parts of others are done."""
PATIENCE_SECONDS = 20.0
"""How long samples of a part that is done may be missing: other machines see new files late."""


class PartDrawing:
    """Draws parts of a run in this process."""

    def __init__(self, run: Components, config: Mapping[str, Any], output: SampleFiles, division: Division) -> None:
        self.parts = Parts(output.folder, division, Worker.of_process(run.model.device, run.context.job))
        left = sum(division.batches(part) for part in range(division.count) if not self.parts.is_done(part))
        self.drawing = Drawing.of(run, config, division.batch_size, left)
        self.writer = BatchWriter(run, output)
        self._files = run.context.writer()
        self._run, self._output = run, output

    def draw(self, part: int) -> None:
        """Draw what is missing of a claimed part."""
        parts, drawing, division = self.parts, self.drawing, self.parts.division
        todo = sorted(set(division.indices(part)) - self.finished(part))
        drawing.monitor.expect(parts.batches_left)
        earlier, before, broken = parts.shares(part), replace(drawing.monitor.tally), len(self.writer.broken)
        shares = earlier

        def write(indices: Sequence[int], batch: Finished, shares: Sequence[Share]) -> None:
            self.writer.save(indices, batch, raw=division.raw)
            parts.write(part, shares, done=False)  # once they are on disk
            self._run.context.finished(len(indices))

        try:
            for _, whole in groupby(todo, lambda index: index // division.batch_size):
                for batch, samples in drawing.batches(list(whole)):
                    if not parts.is_offered:
                        return
                    finished = self.writer.decode(batch.indices, samples, batch.condition)
                    peak, tally = peak_memory_mb(self._run.model.device), drawing.monitor.tally - before
                    own = Share(parts.worker, tally, peak, drawing.drew_noise, self.writer.broken[broken:])
                    shares = [*earlier, own]
                    self._files.write(partial(write, batch.indices, finished, shares))
        finally:
            self._files.wait()  # before another worker may claim the part
        parts.write(part, shares, done=True)

    def close(self) -> None:
        """Draw no more."""
        self.drawing.monitor.close()
        self._files.close()

    def finished(self, part: int) -> set[int]:
        """The samples of a part that are on disk."""
        within = self.parts.division.indices(part)
        record = read_json(self._output.folder / "run.json")
        return {*whole_images(self._output, record, within), *self._output.finished_points(within)[0]}


class Owner(PartDrawing):
    """Draws parts, and takes in those of all workers in order, so that metrics are those of one process."""

    def __init__(
        self, run: Components, config: Mapping[str, Any], output: RunFolder, suite: MetricSuite, division: Division
    ) -> None:
        super().__init__(run, config, output, division)
        self.collected = Collected(run, output, suite)
        self._record = output
        self._next = 0
        self._missing_since: float | None = None

    def draw_all(self) -> None:
        """Draw parts until all are done, by whatever worker."""
        self.parts.offer()
        while not self._collect():
            with closing(self.parts.claimed()) as claimed:
                for part in claimed:
                    self.draw(part)
                    self._collect()
            if not self._collect():
                time.sleep(POLL_SECONDS)

    def collect_rest(self) -> None:
        """Take in what there is of parts that are not done."""
        division = self.parts.division
        self.collected.load(division.batch_size, range(self._next * division.part_size, division.num_samples))

    def tally(self) -> Tally:
        """What sampling took so far, in all processes together."""
        return self.parts.division.before + sum_of(self.parts.all_shares)

    def _collect(self) -> bool:
        """Take in the parts that are done, as far as all before them are; returns whether that is all of them."""
        parts, began = self.parts, self._next
        while self._next < parts.division.count and self._is_whole(self._next):
            self.collected.load(parts.division.batch_size, parts.division.indices(self._next))
            self._next += 1
        if self._next > began:
            known = {key: value for key, value in self.tally().record.items() if value is not None}
            self.collected.log_metrics(self.tally(), self.tally().nfe or 0)
            self._record.update(
                **known, image_shape=self.collected.image_shape, workers=workers_of(self.parts.all_shares)
            )
        return self._next == parts.division.count

    def _is_whole(self, part: int) -> bool:
        """Whether a part is done and on disk; a damaged one is opened again."""
        if not self.parts.is_done(part):
            return False
        if len(self.finished(part)) == len(self.parts.division.indices(part)):
            self._missing_since = None
            return True
        self._missing_since = self._missing_since or time.monotonic()
        if time.monotonic() > self._missing_since + PATIENCE_SECONDS:
            self.parts.reopen(part)
            self._missing_since = None
        return False


def draw_with_others(
    run: Components, config: Mapping[str, Any], output: RunFolder, suite: MetricSuite, size: int
) -> Samples:
    """Draw the samples of a run as its owner, together with whatever helpers there are, and take in all of them.

    Args:
        size: samples in a batch.
    """
    total, known = samples_of(output.record), read_division(output.folder)
    fits = known is not None and (known.num_samples, known.batch_size) == (total, size)
    division = known if known and fits else Division.of(total, size, suite.reads_samples, Tally.of(output.record))
    owner = Owner(run, config, output, suite, division)
    monitor, collected, interrupted = owner.drawing.monitor, owner.collected, False
    try:
        owner.draw_all()
    except KeyboardInterrupt:
        owner.collect_rest()
        warn_of_interrupt(output, len(collected.indices), total)
        interrupted = True
    finally:
        owner.close()
        output.join_points()
    if not interrupted:
        output.images.join()
    shares, tally = owner.parts.all_shares, owner.tally()
    drawn = sum_of(shares).drawn
    warn_of_broken([index for share in shares for index in share.broken], drawn)
    passes = tally.forward_passes if tally.drawn else output.record.get("forward_passes")
    return collected.samples(
        tally,
        tally.nfe or output.record["nfe"] or monitor.nfe,
        passes,
        snapshots=latents_to_rgb(monitor.snapshots, owner.writer.first),
        interrupted=interrupted,
        drew_noise=drawn < total or any(share.drew_noise for share in shares),
        peak_memory_mb=max((peak for share in shares if (peak := share.peak_memory_mb)), default=None),
    )


def help_run(
    config: Mapping[str, Any], folder: Path, catalog: Catalog, context: RunContext, seconds: float = math.inf
) -> int:
    """Draw parts of a run whose owner is another process, until none is open and free.

    Args:
        config: that of the run.
        seconds: after so many no further part is begun.

    Returns:
        The number of samples drawn.

    Raises:
        InputError: this process would draw other samples than the owner.
    """
    division, owned = read_division(folder), read_earlier(folder)
    if division is None or owned is None or not has_open_parts(folder, Watch()):
        return 0
    config = {**config, "metric": {}, "tracker": {}, "snapshot_every": 0}
    with context.cpu_section():
        run = assemble(config, catalog, context)
        own = {"config": config} | identity_of(run, config, catalog)
    check_same_samples(owned, own)
    device = owned.record.get("device")
    if device and torch.device(device).type != run.model.device.type:
        raise InputError(
            f"{folder} is drawn on {device}; this process has {run.model.device}, which differs by rounding"
        )
    reset_peak_memory(run.model.device)
    output = SampleFiles(folder, config["samples"])
    output.texts = sample_texts(owned.record)
    drawing = PartDrawing(run, config, output, division)
    first = 1 + os.getpid() % max(1, division.count - 1)  # helpers begin in different places, no one with sample 0
    began = time.monotonic()
    try:
        with closing(drawing.parts.claimed(min(first, division.count - 1))) as claimed:
            for part in claimed:
                drawing.draw(part)
                if time.monotonic() > began + seconds:
                    break
    finally:
        drawing.close()
    return drawing.drawing.monitor.tally.drawn
