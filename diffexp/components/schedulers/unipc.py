"""Unified predictor-corrector."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.exponential import adams_weights, data_step, noise_step, step_orders
from diffexp.plan.execute import weighted
from diffexp.plan.levels import Level, Levels
from diffexp.plan.method import Denoiser


@scheduler(
    discrete=True,
    order=("order", 2, 3, 4, 4),
    spacing="linspace",
    spare_level=True,
    diffusers=("UniPCMultistepScheduler",),
)
def unipc(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    noise: Callable[[], Tensor],
    *,
    order: Literal[1, 2, 3, 4] = 2,
    variant: Literal["bh1", "bh2"] = "bh2",
    predict: Literal["data", "noise"] = "data",
    lower_order_final: bool = True,
    disable_corrector: Sequence[int] = (),
) -> Tensor:
    """UniPC (Zhao et al. 2023, arXiv:2302.04867). One evaluation per step; UniPC-p has order p + 1.

    The predictor UniP steps along the last p estimates. The evaluation where it lands also serves the corrector UniC,
    which takes that step again with p + 1 estimates, before the next one goes on from there.

    Args:
        order: p, the number of estimates that the predictor uses, 1 to 4. (At 4, the lower orders of the first steps
            leave a method of order 4.)
        variant: B(h) of the paper; ``bh1`` is h, ``bh2`` is exp(h) - 1. They differ where two estimates are used.
        predict: step along the x0 estimates (``data``, which suits guidance better) or along those of the noise.
        lower_order_final: use fewer and fewer estimates in the last steps.
        disable_corrector: indices of steps that are not corrected, from 0; under strong guidance the first ones.
    """
    rate = -1 if predict == "data" else 1
    past: list[tuple[Level, Tensor]] = []
    before, points = x, 0

    def step(x: Tensor, here: Level, there: Level, known: Sequence[tuple[Level, Tensor]]) -> Tensor:
        times, estimates = zip(*((level.log_snr, estimate) for level, estimate in known))
        weights = _weights(times, here.log_snr, there.log_snr, rate, variant)
        take = data_step if predict == "data" else noise_step
        return take(x, here, there, weighted(list(zip(weights, estimates))))

    for k, ((here, there), allowed) in enumerate(zip(levels.pairs(), step_orders(levels, order, lower_order_final))):
        x0 = denoise(x, here)
        known = (here, x0 if predict == "data" else (x - here.alpha * x0) / here.sigma)
        # A step along the noise from alpha = 0 has no finite correction.
        if k and k - 1 not in disable_corrector and (predict == "data" or levels[k - 1].alpha):
            x = step(before, levels[k - 1], here, [*past[:points], known])
        past, before, points = [known, *past[: order - 1]], x, allowed
        # At alpha = 0 both kinds of step are the same, but only this one is finite.
        x = step(x, here, there, past[:points]) if here.alpha else data_step(x, here, there, x0)
    return x


def _weights(nodes: Sequence[float], start: float, end: float, rate: float, variant: str) -> list[float]:
    """Weights of the estimates at ``nodes`` in a step from ``start``, the first of them, to ``end``.

    The a_m of the paper solve for the weights of ``adams_weights``, whatever B(h) is; only with two estimates it puts
    a_1 = 1/2 instead, which is as accurate and leaves a trace of B(h).
    """
    if len(nodes) != 2:
        return adams_weights(nodes, start, end, rate)
    z = rate * (end - start)
    b = z / math.expm1(z) if variant == "bh1" and math.isfinite(z) else 1.0  # B(h) / (exp(h) - 1)
    r = 1.0 if nodes[1] == end else (nodes[1] - start) / (end - start)
    return [1 - 0.5 * b / r, 0.5 * b / r]
