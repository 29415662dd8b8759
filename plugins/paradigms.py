"""Parallel in time: all steps of a run at once, iterated until they no longer change.

    python -m diffexp loop=paradigms steps=50 num_samples=4
    python -m diffexp -m loop=paradigms loop.tolerance=0.1,0.03,0 scheduler=ddpm steps=100 num_samples=4

The samples are those of ``loop=denoise``, up to the tolerance, and take less time on hardware with room for larger
batches. Any scheduler that compiles to a plan works: its table relates the steps to each other. The number of rounds is
logged.
"""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffexp import Batch, History, InputError, Plan, advance, begin, clamped, loop

log = logging.getLogger("diffexp.paradigms")


@loop(solves_from_noise=True)
def paradigms(batch: Batch, *, window: int = 0, tolerance: float = 0.01) -> Tensor:
    """ParaDiGMS (Shih et al. 2023, arXiv:2305.16317, algorithm 1): Picard iteration over the steps of a plan.

    Every round evaluates the network at all samples x_k of the window at once and then follows the plan's rows with
    these outputs. The first of them that was not final is final after it, so there are never more rounds than steps.

    Args:
        window: number of steps in a round; 0 means all of them.
        tolerance: change of a step (root mean square, in units of the spread of x at its level) below which it is
            final. 0 is exact: the samples of ``loop=denoise`` up to rounding.

    Raises:
        InputError: the scheduler runs directly, without a plan; a window or tolerance below 0.
    """
    plan = batch.sampler
    if not isinstance(plan, Plan):
        raise InputError(f"loop=paradigms needs a plan, and {plan.method.name} runs directly: {plan.reason}")
    if window < 0 or tolerance < 0:
        raise InputError(f"loop.window={window} and loop.tolerance={tolerance:g} must be at least 0")
    start = batch.noise() * plan.start_std
    # All noise now, in the order of the plan, because steps are taken more than once.
    first = begin(plan, start, batch.noise)
    draws = [[batch.noise() for _ in row.z] for row in plan.rows]
    spreads = [*(math.hypot(row.level.alpha, row.level.sigma) / row.scale for row in plan.rows), 1.0]
    xs = [first * (spread / spreads[0]) for spread in spreads]
    ms: list[Tensor] = []
    ds: list[Sequence[Tensor]] = []
    done = rounds = 0
    while done < plan.nfe:
        span = range(done, min(done + (window or plan.nfe), plan.nfe))
        outputs = batch.network_at_once(
            torch.stack([xs[k] * plan.rows[k].scale for k in span]), [plan.rows[k].level for k in span]
        )
        ms[done:] = outputs
        ds[done:] = [clamped(plan.rows[k], xs[k], ms[k]) for k in span]
        changes = []
        for k in span:
            past = slice(max(k - plan.depth, 0), k + 1)
            history = History(xs[past][::-1], ms[past][::-1], ds[past][::-1])
            x = advance(plan.rows[k], history, iter(draws[k]).__next__)
            changes.append((x - xs[k + 1]).flatten(1).square().mean(1).max().sqrt() / spreads[k + 1])
            xs[k + 1] = x
        rounds += 1
        final = torch.stack(changes) <= tolerance
        # The leading steps that no longer change, and the one after them, whose input did not.
        done += min(int(final.long().cumprod(0).sum()) + 1, len(span))
        # Samples beyond the window start from its last one.
        xs[span.stop + 1 :] = [xs[span.stop] * (spread / spreads[span.stop]) for spread in spreads[span.stop + 1 :]]
    log.info("%d steps in %d rounds of at most %d", plan.nfe, rounds, window or plan.nfe)
    return xs[-1]
