"""DPM-Solver++ with a middle stage, on the reverse SDE."""

import math
from collections.abc import Callable

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.exponential import step_length
from diffexp.components.schedulers.shared.sigma_space import ancestral_split
from diffexp.errors import InputError
from diffexp.plan.levels import Level, Levels
from diffexp.plan.method import Denoiser


@scheduler(order=2, spacing="linspace", diffusers=("DPMSolverSDEScheduler", "HeunDiscreteScheduler"))
def dpmpp_sde(
    denoise: Denoiser, x: Tensor, levels: Levels, noise: Callable[[], Tensor], *, eta: float = 1.0, r: float = 0.5
) -> Tensor:
    """DPM-Solver++ SDE (``sample_dpmpp_sde`` of k-diffusion). Two evaluations and two draws per step; weak order 2.

    A first-order step goes to a middle level, where x0 is estimated again; the whole step then uses both estimates.
    The noise of the middle stage is part of that of the whole step, as on one path of the SDE: the second draw adds
    what is still missing. (k-diffusion takes both from a Brownian path in sigma. With independent ones the noise does
    not know of the x0 that it led to, and the variance comes out with order 1.)

    Args:
        eta: share of the noise of the reverse process, in [0, 1]; 0 is the ODE solver DPM-Solver++(2S).
        r: where the middle level is, in (0, 1] as a part of the step in log(alpha / sigma).

    Raises:
        InputError: ``eta`` or ``r`` out of range.
    """
    if not 0 <= eta <= 1:
        raise InputError(f"scheduler.eta={eta:g} must be between 0 and 1")
    if not 0 < r <= 1:
        raise InputError(f"scheduler.r={r:g} must be greater than 0 and at most 1")
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        down, up = ancestral_split(here.ratio, there.ratio, eta)
        h = step_length(here, there)
        if math.isinf(h):  # to the clean end or from no signal: there is no middle
            x = _denoised(x, x0, here, there, down)
            x = x + there.alpha * up * noise() if up else x
            continue
        middle = levels.schedule.at_ratio(here.ratio * math.exp(-r * h))
        down_s, up_s = ancestral_split(here.ratio, middle.ratio, eta)
        z = noise() if eta else 0.0
        x_s = _denoised(x, x0, here, middle, down_s) + middle.alpha * up_s * z
        x0 = (1 - 1 / (2 * r)) * x0 + 1 / (2 * r) * denoise(x_s, middle)
        x = _denoised(x, x0, here, there, down) + there.alpha * (down / down_s * up_s) * z
        if eta:
            # sqrt(up^2 - (down / down_s * up_s)^2), multiplied out
            gap = math.sqrt(max(middle.ratio**2 - there.ratio**2, 0.0))
            missing = eta * gap * (there.ratio / here.ratio) * (middle.ratio / down_s)
            x = x + there.alpha * missing * noise()
    return x


def _denoised(x: Tensor, x0: Tensor, here: Level, there: Level, down: float) -> Tensor:
    """x / alpha moved towards x0 until ``down`` is left of its sigma / alpha, at the scale of ``there``."""
    return there.alpha * (down / here.sigma * x + (1 - down / here.ratio) * x0)
