"""The cost of a step beside the network."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from diffexp.certify.bindings import OfCode
from diffexp.certify.outcome import Outcome, passed
from diffexp.certify.subject import Subject
from diffexp.plan.execute import execute
from diffexp.plan.levels import Level
from diffexp.plan.table import Plan

STEPS, ROUNDS = 20, 5
SHAPE = (1, 4, 64, 64)


def cost(subject: Subject) -> Outcome:
    """Evaluations per step, and microseconds per step on one thread for [1, 4, 64, 64] in float32, compiled and not."""
    bound = subject.bind(STEPS)
    x, output, z = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    sampler, uncompiled = bound.sampler, None
    if isinstance(bound, OfCode):
        code = bound.code

        def evaluate(x: Tensor, u: Tensor, level: Level) -> Tensor:
            return output

        uncompiled = _microseconds(lambda: code(evaluate, x.clone(), lambda: z))
    if not isinstance(sampler, Plan):
        return passed(f"{uncompiled:.0f} µs a step, not compiled: {sampler.reason}", uncompiled_us=uncompiled)
    compiled = _microseconds(lambda: execute(sampler, lambda u, level: output, x, lambda: z))
    found = f"{sampler.nfe} evaluations in {STEPS} steps, {compiled:.0f} µs a step compiled"
    if uncompiled is not None:
        found += f", {uncompiled:.0f} µs not"
    return passed(
        found,
        nfe_per_step=sampler.nfe / STEPS,
        draws_per_step=sampler.draws / STEPS,
        looks_back=sampler.depth,
        compiled_us=compiled,
        uncompiled_us=uncompiled,
    )


def _microseconds(run: Callable[[], object]) -> float:
    """Return the median time of a step."""
    times = []
    with torch.inference_mode():
        run()
        for _ in range(ROUNDS):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
    return statistics.median(times) / STEPS * 1e6
