"""Parallel in time: all steps of a run at once, repeated until they no longer change.

    python -m diffexp loop=paradigms steps=50 num_samples=4
    python -m diffexp -m loop=paradigms loop.tolerance=0.1,0.03,0 scheduler=ddpm steps=100 num_samples=4

The samples equal those of ``loop=denoise`` up to the tolerance; hardware with capacity for larger batches computes them
sooner. Works with every scheduler that compiles to a plan, whose rows define how the steps depend on each other. The
number of rounds is logged.
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

    Every round evaluates the network at all x_k of the window at once and then runs the plan's rows with these outputs.
    Each round completes at least one more step, so there are never more rounds than steps.

    Args:
        window: number of steps per round; 0 is all of them.
        tolerance: largest change (root mean square, in units of the spread of x at its level) of a step that counts as
            converged. 0 gives the samples of ``loop=denoise`` up to rounding.

    Raises:
        InputError: the scheduler runs directly, without a plan; a window or tolerance below 0.
    """
    plan = batch.sampler
    if not isinstance(plan, Plan):
        raise InputError(f"loop=paradigms needs a plan, and {plan.method.name} runs directly: {plan.reason}")
    if window < 0 or tolerance < 0:
        raise InputError(f"loop.window={window} and loop.tolerance={tolerance:g} must be at least 0")
    start = batch.noise() * plan.start_std
    # All noise now, in the order of the plan, because steps are computed more than once.
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
        converged = torch.stack(changes) <= tolerance
        # The leading steps that no longer change, and the next one, whose input no longer changes.
        done += min(int(converged.long().cumprod(0).sum()) + 1, len(span))
        # Guesses beyond the window follow its last sample.
        xs[span.stop + 1 :] = [xs[span.stop] * (spread / spreads[span.stop]) for spread in spreads[span.stop + 1 :]]
    log.info("%d steps in %d rounds of at most %d", plan.nfe, rounds, window or plan.nfe)
    return xs[-1]
