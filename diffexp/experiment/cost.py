"""Time and memory of a run."""

import logging
import sys
import time
from dataclasses import replace

import torch
from torch import Tensor

from diffexp.components.metrics.base import RunFacts
from diffexp.components.models.base import HasClasses, state_dtype
from diffexp.experiment.build import Components
from diffexp.experiment.samples import Samples
from diffexp.plan.compile import sample
from diffexp.plan.levels import Level
from diffexp.plan.table import Plan

log = logging.getLogger(__name__)


def run_facts(run: Components, samples: Samples) -> RunFacts:
    """Return the facts about a run and its samples that metrics can use."""
    return replace(facts_so_far(run, samples), scheduler_us_per_step=scheduler_us_per_step(run))


def facts_so_far(run: Components, samples: Samples) -> RunFacts:
    """``run_facts`` without the scheduler's own time, which is measured at the end."""
    classes = run.model.classes if isinstance(run.model, HasClasses) else None
    peaks = (peak_memory_mb(run.model.device), samples.peak_memory_mb)
    return RunFacts(
        nfe=samples.nfe,
        forward_passes=samples.forward_passes,
        num_samples=samples.tally.drawn,
        seconds=samples.tally.seconds,
        model_seconds=samples.tally.model_seconds,
        scheduler_us_per_step=None,
        peak_memory_mb=max((peak for peak in peaks if peak is not None), default=None),
        plan=run.sampler if isinstance(run.sampler, Plan) and run.from_noise else None,
        model=run.model,
        captions=samples.captions,
        classes=classes.asked(run.request, samples.indices) if classes else None,
    )


def scheduler_us_per_step(run: Components, passes: int = 3) -> float | None:
    """Microseconds per evaluation, for one sample, a network and noise that cost nothing: the fastest of a few passes.

    None where the sampler cannot run on a stand-in network.
    """
    model = run.model
    like = torch.zeros(1, *model.shape, device=model.device, dtype=state_dtype(model))
    try:
        return min(_timed(run, like) for _ in range(passes)) * 1e6
    except Exception as error:  # a direct method may insist on a real model
        log.debug("no scheduler time: %s", error)
        return None


def _timed(run: Components, like: Tensor) -> float:
    """Seconds per evaluation; counted, because an adaptive method may take other steps here than in the run."""
    evaluations = 0

    def network(u: Tensor, level: Level) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return like

    with torch.inference_mode():
        began = time.perf_counter()
        sample(run.sampler, network, like, lambda: like)
        if like.device.type == "cuda":
            torch.cuda.synchronize(like.device)
        return (time.perf_counter() - began) / max(1, evaluations)


def reset_peak_memory(device: torch.device) -> None:
    """Start to measure ``peak_memory_mb`` anew where that is possible: runs of a sweep share a process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float | None:
    """Most memory in use, in 10^6 bytes: the run's own on a GPU, on a CPU that of the process since its start.

    None where it is unknown: on other devices, and on a CPU under Windows.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if device.type == "cpu":
        return _peak_of_process()
    return None


def _peak_of_process() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
