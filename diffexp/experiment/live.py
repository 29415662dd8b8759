"""What a run logs while it samples: scalars of its steps, previews, finished samples, metrics so far.

Tensors are read and pictures drawn in a thread of its own, at most about once a second, so that sampling neither waits
for the device nor for a tracker. One that is slow gets fewer previews and all of the rest.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from diffexp.components.metrics.base import RunFacts
from diffexp.components.pixels import to_image
from diffexp.components.trackers.base import SampleRow
from diffexp.components.trackers.several import Trackers
from diffexp.experiment.metric_suite import MetricSuite
from diffexp.experiment.pictures.previews import preview
from diffexp.plan.noise import sample_seed

log = logging.getLogger(__name__)

SECONDS = 1.0
"""Between two times that something is logged while a batch is sampled."""
MOST_IMAGES = 108
"""Samples whose images are logged as soon as they are finished."""
SHARE = 0.02
"""Of the time of the run that metrics so far may take."""
EXPECTED_SECONDS = 0.02
"""What they are taken to need the first time."""

Step = tuple[int, dict[str, float | Tensor]]
"""A step of the solver with its scalars; those that are tensors without axes may be on a device."""


class Live:
    """Logs a run to its trackers while it samples; without trackers it does nothing.

    Args:
        trackers: of the run.
        seed: of the run.
    """

    def __init__(self, trackers: Trackers, seed: int) -> None:
        self._trackers = trackers
        self._seed = seed
        self._thread = ThreadPoolExecutor(1, "live")  # starts with its first job
        self._last: Future[None] | None = None
        self._began = self._sent = time.monotonic()
        self._steps: list[Step] = []
        self._images = self._done = 0
        self._measuring, self._expected = 0.0, EXPECTED_SECONDS

    def __bool__(self) -> bool:
        return bool(self._trackers)

    @property
    def is_due(self) -> bool:
        """Whether something is to be logged in the middle of a batch."""
        if not self or time.monotonic() < self._sent + SECONDS:
            return False
        return (self._last is None or self._last.done()) and not self._trackers.is_behind

    def restart(self) -> None:
        """Begin anew: the first batch did not fit into memory."""
        self._steps = []

    def step(self, step: int, scalars: dict[str, float | Tensor], x0: Tensor | None) -> None:
        """Take in a step; log it, with those before it, if that is due.

        Args:
            x0: predicted samples for a preview [n, *shape], which nobody changes any more; None: no preview.
        """
        if scalars:
            self._steps.append((step, scalars))
        if x0 is not None or self.is_due:
            self.flush()
        if x0 is not None:
            self._submit(lambda: self._trackers.log_preview(step, preview(x0)))

    def flush(self) -> None:
        """Log all steps that were taken in."""
        steps, self._steps = self._steps, []
        self._sent = time.monotonic()
        if steps:
            self._submit(lambda: self._log_steps(steps))

    def batch(self, indices: Sequence[int], captions: Sequence[str], images: Tensor, done: int) -> None:
        """Log finished samples.

        Args:
            images: [B, C, H, W] in [0, 1], or points [B, d].
            done: the number of samples of the run that are finished.
        """
        self._done = done
        if not self:
            return
        shown = len(indices) if images.ndim == 2 else max(0, MOST_IMAGES - self._images)
        pictures = [None] * len(indices) if images.ndim == 2 else [to_image(image) for image in images[:shown]]
        self._images += len(pictures)
        rows = [
            SampleRow(index, caption, sample_seed(self._seed, index), None, picture and (lambda own=picture: own))
            for index, caption, picture in zip(indices, captions, pictures)
        ]
        self._submit(lambda: self._trackers.log_batch(rows, done))

    def metrics(self, suite: MetricSuite, facts: Callable[[], RunFacts]) -> None:
        """Log the metrics so far, unless that would take too long.

        Args:
            suite: of the run, with all finished samples.
            facts: about these samples.
        """
        began = time.monotonic()
        if not self or self._measuring + self._expected > SHARE * (began - self._began):
            return
        known = facts()
        values = suite.so_far(known)
        self._expected = time.monotonic() - began
        self._measuring += self._expected
        if values:
            self._submit(lambda: self._trackers.log_metrics(known.num_samples, values))

    def close(self) -> None:
        """Log what is left, and wait until the trackers have it."""
        self.flush()
        self._thread.shutdown(wait=True)

    def finish(self, metrics: dict[str, float], status: str) -> None:
        """Close the run in the trackers; see ``Tracker.finish``."""
        self.close()
        if known := {name: value for name, value in metrics.items() if math.isfinite(value)}:
            self._trackers.log_metrics(self._done, known)
        self._trackers.finish(metrics, status)

    def _submit(self, job: Callable[[], None]) -> None:
        if self:
            self._last = self._thread.submit(_logged, job)

    def _log_steps(self, steps: Sequence[Step]) -> None:
        tensors = [value.float() for _, scalars in steps for value in scalars.values() if isinstance(value, Tensor)]
        numbers = iter(torch.stack(tensors).tolist() if tensors else ())  # the device is waited for once
        for step, scalars in steps:
            self._trackers.log_step(
                step, {name: next(numbers) if isinstance(own, Tensor) else float(own) for name, own in scalars.items()}
            )


def _logged(job: Callable[[], None]) -> None:
    """Call a job; whatever it raises costs what it was to log, and nothing else."""
    try:
        with torch.inference_mode():
            job()
    except Exception as error:
        log.debug("not logged: %s: %s", type(error).__name__, error, exc_info=True)
