"""What a run will cost, before it is run: evaluations from its plan, seconds from earlier runs or a short timing."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from diffexp.experiment.batches import make_batch
from diffexp.experiment.build import Components
from diffexp.experiment.guide import rehearse
from diffexp.experiment.monitor import Evaluator
from diffexp.experiment.provenance import hostname
from diffexp.files import read_json
from diffexp.plan.levels import Level
from diffexp.plan.table import Plan

MOST_RUNS = 20
"""Earlier runs that a rate is the median of."""
MOST_ROWS = 16
"""Samples in the call of the network that is timed, at most."""
CALLS = 3
LONG_SECONDS = 1.0
"""Where the first call takes longer, it is the only one."""


@dataclass(frozen=True)
class Work:
    """What one sample of a run takes."""

    nfe: int
    """Model evaluations."""
    forward_passes: float
    """Of the network, those for guidance included."""
    exact: bool
    """Whether that is known for certain: not of a sampler that chooses its steps as it goes."""


class _Begins(Exception):
    """Raised where the first evaluation would be."""


class _Announced(Evaluator):
    """Takes in the number of evaluations that a loop announces, and ends it before the first."""

    nfe: int | None = None

    def expect_evaluations(self, nfe: int) -> None:
        self.nfe = nfe

    def on_evaluation(self, u: Tensor, output: Tensor, level: Level) -> None:
        raise _Begins

    def _evaluate(self, *args: Any, **options: Any) -> Tensor:
        raise _Begins


def work_of(run: Components, config: Mapping[str, Any]) -> Work:
    """The evaluations of a run; no network is evaluated.

    Args:
        config: that of the run.
    """
    exact, planned = isinstance(run.sampler, Plan), run.sampler.nfe
    announced = _Announced(run.model)
    if not run.from_noise:
        try:
            with torch.inference_mode():
                run.loop(make_batch(run, int(config["seed"]), [0], announced))
            exact = False
        except _Begins:
            pass
        except Exception:  # a loop that cannot be stopped there, such as one that calls a pipeline
            exact = False
    nfe = planned if announced.nfe is None else announced.nfe
    try:
        passes = rehearse(run.guide, run.model, run.sampler, run.request).passes * nfe / max(1, planned)
    except Exception:  # of a model that is called by its pipeline alone
        passes, exact = float(nfe * (2 if run.guidance_scale > 1 else 1)), False
    return Work(nfe, passes, exact)


def earlier_rate(records: Iterable[Path], run: Components, config: Mapping[str, Any]) -> tuple[float, int] | None:
    """Seconds of sampling per forward pass of one sample, in earlier runs of the same model on this machine and device.

    Args:
        records: files ``run.json``, the newest first.

    Returns:
        The median over some runs, and their number; None without any.
    """
    own = {
        "host": hostname(),
        "device": str(run.model.device),
        "dtype": str(run.model.dtype).removeprefix("torch."),
    }
    rates: list[float] = []
    for file in records:
        record = read_json(file)
        known: Any = record.get("config")
        if not isinstance(known, Mapping) or any(record.get(key) != value for key, value in own.items()):
            continue
        if any(known.get(key) != config.get(key) for key in ("model", "compile")):
            continue
        drawn, passes, seconds = (record.get(key) for key in ("drawn", "forward_passes", "sampling_seconds"))
        if record.get("status") == "done" and "same_as" not in record and drawn and passes and seconds:
            rates.append(seconds / (drawn * passes))
        if len(rates) == MOST_RUNS:
            break
    return (median(rates), len(rates)) if rates else None


def measured_rate(run: Components, config: Mapping[str, Any]) -> float | None:
    """Seconds per forward pass of one sample, from a few calls of the network; None where it cannot be called so."""
    rows = max(1, min(MOST_ROWS, int(config["batch_size"]), int(config["num_samples"])))
    try:
        first = _seconds(run, 1)
        return first if first > LONG_SECONDS else median(_seconds(run, rows) for _ in range(CALLS))
    except Exception:  # such as a pipeline that is called whole
        return None


def _seconds(run: Components, rows: int) -> float:
    with torch.inference_mode():
        batch = make_batch(run, 0, range(rows), Evaluator(run.model))
        u, before = batch.noise(), run.passes.rows
        run.context.synchronize(run.model.device)
        began = time.perf_counter()
        batch.network(u, run.sampler.levels[0])
        run.context.synchronize(run.model.device)
    return (time.perf_counter() - began) / max(1, run.passes.rows - before)
