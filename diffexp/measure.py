"""What a run measures of itself, and which metrics apply to it."""

import logging
import resource
import sys
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from diffexp.assembly import Parts
from diffexp.drawing import Drawing
from diffexp.metrics.base import Metric, RunFacts
from diffexp.models.base import Model
from diffexp.plan import Plan, sample

log = logging.getLogger(__name__)


def applicable(metrics: Mapping[str, Metric], model: Model) -> dict[str, Metric]:
    """Those that make sense for the model; the others are named in the log, with the reason."""
    chosen = {}
    for name, metric in metrics.items():
        reason = metric.applies(model)
        if reason:
            log.debug("metric %s is left out: %s", name, reason)
        else:
            chosen[name] = metric
    return chosen


def measure(metrics: Mapping[str, Metric], parts: Parts, drawing: Drawing) -> dict[str, float]:
    """All values, flat; a metric that fails is logged and missing, the others stay."""
    facts = facts_of(parts, drawing)
    values: dict[str, float] = {}
    for name, metric in metrics.items():
        try:
            for samples, images in drawing.batches:
                metric.update(samples, images)
            values |= metric.compute(facts)
        except Exception as error:  # a plugin's mistake must not cost the samples
            log.error("metric %s failed and is left out: %s: %s", name, type(error).__name__, error)
            log.debug("its traceback", exc_info=True)
    return values


def facts_of(parts: Parts, drawing: Drawing) -> RunFacts:
    return RunFacts(
        nfe=drawing.nfe,
        num_samples=drawing.drawn,
        seconds=drawing.seconds,
        model_seconds=drawing.model_seconds,
        scheduler_us_per_step=scheduler_us_per_step(parts, drawing),
        peak_memory_mb=peak_memory_mb(parts.model.device),
        plan=parts.sampler if isinstance(parts.sampler, Plan) else None,
        model=parts.model,
    )


def scheduler_us_per_step(parts: Parts, drawing: Drawing, passes: int = 3) -> float | None:
    """Microseconds a step for one sample with a network and noise that cost nothing: the fastest of a few passes.

    None where the sampler cannot run on a stand-in network.
    """
    model = parts.model
    like = torch.zeros(1, *model.shape, device=model.device, dtype=torch.promote_types(model.dtype, torch.float32))

    def noise() -> Tensor:
        return like

    try:
        times = [_timed(parts, like, noise) for _ in range(passes)]
    except Exception as error:  # a direct method may insist on a real model
        log.debug("no scheduler time: %s", error)
        return None
    return min(times) / max(1, drawing.nfe) * 1e6


def _timed(parts: Parts, like: Tensor, noise) -> float:
    with torch.inference_mode():
        began = time.perf_counter()
        sample(parts.sampler, lambda u, level: like, like, noise)
        if like.device.type == "cuda":
            torch.cuda.synchronize(like.device)
        return time.perf_counter() - began


def peak_memory_mb(device: torch.device) -> float | None:
    """Most memory in use so far, in 10^6 bytes: the GPU's allocations, or the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if device.type == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
    return None
