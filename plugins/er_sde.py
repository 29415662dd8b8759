"""ER-SDE-Solver: a multistep method with a tunable amount of noise, from none (ODE) to that of the SDE.

Popular in ComfyUI, where it is called ``er_sde``; diffusers has no such scheduler.

    python -m diffexp scheduler=er_sde steps=15 grid=karras
    python -m diffexp -m scheduler=er_sde scheduler.noise_scale=ode,er,sde steps=15
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from diffexp import scheduler

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)

SCALES: dict[str, Callable[[float], float]] = {
    "ode": lambda ratio: 1.0,
    "er": lambda ratio: math.exp(ratio**0.3) + 10.0,
    "sde": lambda ratio: ratio,
}
"""phi(r) / r: constant where no noise is added, r for the time reversal of the training process."""


@scheduler(order=("max_stage", 1, 2, 2))
def er_sde(
    denoise,
    x,
    levels,
    noise,
    *,
    max_stage: int = 3,
    noise_scale: Literal["er", "ode", "sde"] = "er",
    s_noise: float = 1.0,
):
    """ER-SDE-Solver (Cui et al. 2023, arXiv:2309.06169), for VP and VE levels alike. One evaluation a step.

    Every SDE whose noise has the scale ``phi(r)``, with ``r = sigma / alpha``, has the marginals of the training
    process. Its exact solution from r to r' < r is

        x' / alpha' = phi'/phi x / alpha + (1 - phi'/phi) x0 + z sqrt(r'^2 - r^2 (phi'/phi)^2)

    plus corrections for x0(r), which is expanded around r with derivatives from past steps. The integrals of 1 / phi in
    them are computed by quadrature in log r. The last step returns x0 unchanged.

    Two stages have weak order 2. The third reduces the error but not its order, here as in the paper, because the first
    derivative remains a backward difference.

    Args:
        max_stage: number of terms of that expansion, 1 to 3.
        noise_scale: ``er`` is the paper's phi(r) = r (exp(r^0.3) + 10); ``ode`` is r (deterministic, with one stage
            DDIM); ``sde`` is r^2 (with one stage DDIM at eta = 1).
        s_noise: factor on the noise.
    """
    scale = SCALES[noise_scale]
    past: list = []  # (r, x0, dx0/dr) of the steps before, newest first
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        r, r_next = here.ratio, there.ratio
        decay = scale(r_next) / scale(r)
        # phi'/phi = decay r'/r; multiplied out, so that it also holds at alpha = 0
        x = there.sigma / here.sigma * decay * x + there.alpha * (1 - decay * r_next / r) * x0
        if there.sigma == 0:
            return x
        slope = (x0 - past[0][1]) / (r - past[0][0]) if past else None
        if past and max_stage >= 2:
            zeroth, first = _integrals(scale, r_next, r)
            x = x + there.alpha * (r_next - r + zeroth) * slope
            if len(past) > 1 and max_stage >= 3:
                curvature = (slope - past[0][2]) / ((r - past[1][0]) / 2)
                x = x + there.alpha * ((r_next - r) ** 2 / 2 + first) * curvature
        if decay < 1:
            x = x + s_noise * there.sigma * math.sqrt(1 - decay**2) * noise()
        past = [(r, x0, slope), *past[:1]]
    return x


def _integrals(scale: Callable[[float], float], low: float, high: float) -> tuple[float, float]:
    """phi(low) times the integrals of 1 / phi(s) and of (s - high) / phi(s) from ``low`` to ``high``."""
    middle, half = math.log(high * low) / 2, math.log(high / low) / 2
    nodes = [math.exp(middle + half * node) for node in NODES]
    weights = [low * half * weight * scale(low) / scale(s) for weight, s in zip(WEIGHTS.tolist(), nodes)]
    return sum(weights), sum(weight * (s - high) for weight, s in zip(weights, nodes))
