"""Restart sampling."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.sigma_space import SigmaSpace, add_noise, heun_step
from diffexp.errors import InputError
from diffexp.plan.levels import Level, Levels
from diffexp.plan.method import Denoiser


@scheduler(order=2)
def restart(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    noise: Callable[[], Tensor],
    *,
    intervals: Sequence[Sequence[float]] = ((0, 2, 0.06, 0.3),),
    rho: float = 7.0,
) -> Tensor:
    """Restart sampling (Xu et al. 2023, arXiv:2306.14878), weak order 2.

    Heun's method down to t_min; then, K times, noise is added up to t_max at once and Heun's method goes down to t_min
    again, which contracts the errors made so far. Two evaluations per step, one in the last: 2 * steps - 1
    and 2 * K * (N - 1) for every interval.

    Args:
        intervals: [N, K, t_min, t_max] each, as in the paper's tables: the number of levels of a repetition (both
            ends counted), the number of repetitions, and the range in sigma / alpha. t_min stands for the nearest
            level of the grid, and t_max for that of the start where it lies above. N = 0 visits the levels that the
            grid has there, t_max being the nearest one; where that is t_min itself there is nothing to repeat. The
            default is the paper's choice for CIFAR-10 (table 3; N = 3 and 18 steps there). The authors' code for
            Stable Diffusion has [[10, 2, 0.1, 2]].
        rho: spaces the N levels (Karras et al. 2022, eq. 5).

    Raises:
        InputError: an interval is not of this form, or ``rho`` is not greater than 0.
    """
    if rho <= 0:
        raise InputError(f"scheduler.rho={rho:g} must be greater than 0")
    space = SigmaSpace.of(levels.schedule)
    restarts = [_restart(levels, interval, rho) for interval in intervals]
    for here, there in levels.pairs():
        x = heun_step(space, denoise, x, here, there)
        for path, repetitions in restarts:
            for _ in range(repetitions if path[-1] == there else 0):
                x = add_noise(x, path[-1], path[0], noise())
                for above, below in pairwise(path):
                    x = heun_step(space, denoise, x, above, below)
    return x


def _restart(levels: Levels, interval: Sequence[float], rho: float) -> tuple[Sequence[Level], int]:
    """The levels of one repetition, from t_max down to t_min, and the number of repetitions."""
    _check(interval)
    count, repetitions, t_min, t_max = interval
    low = min(range(1, len(levels)), key=lambda i: abs(levels[i].ratio - t_min))
    if count == 0:
        high = min(range(low + 1), key=lambda i: abs(levels[i].ratio - t_max))
        return levels[high : low + 1], int(repetitions) if high < low else 0
    top, bottom = min(t_max, levels[0].ratio), levels[low].ratio
    ratios = np.linspace(top ** (1 / rho), bottom ** (1 / rho), int(count))[:-1] ** rho
    path = (*map(levels.schedule.at_ratio, ratios.tolist()), levels[low])
    return path, int(repetitions) if bottom < top else 0


def _check(interval: Sequence[float]) -> None:
    if len(interval) != 4:
        raise InputError(f"scheduler.intervals: {list(interval)} should be [N, K, t_min, t_max]")
    count, repetitions, t_min, t_max = interval
    if count not in (0, *range(2, 1001)) or repetitions not in range(1, 1001):
        raise InputError(f"scheduler.intervals: {list(interval)} needs a whole N (0, or 2 to 1000) and K (1 to 1000)")
    if not 0 <= t_min < t_max:
        raise InputError(f"scheduler.intervals: {list(interval)} must satisfy 0 <= t_min < t_max")
