"""Steps in sigma space, shared by the schedulers that are built from them.

Karras et al. (2022, arXiv:2206.00364) write samplers for ``y = x0 + s * eps``, where the probability-flow ODE is
``dy/ds = (y - x0) / s``. Every noise schedule has such a coordinate; ``SigmaSpace`` is the way there and back.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from diffexp.errors import InputError
from diffexp.plan.levels import Level, Schedule

Denoise = Callable[[Tensor, Level], Tensor]
"""(x, level) to the x0 estimate."""


@dataclass(frozen=True)
class SigmaSpace:
    """The line ``y = x / c``, ``s = sigma / c`` with ``c = alpha + weight * sigma``, along which dy/ds = (y - x0) / s.

    With ``weight`` 0 it is the paper's: x / alpha over sigma / alpha. That one is infinite where alpha = 0. With
    weight 1 it is the straight path of flow matching, ``y = (1 - s) * x0 + s * eps``, which never is; its slope is the
    flow's velocity, so that a method on a flow model is the method that the flow's own time gives.
    """

    schedule: Schedule
    weight: float

    @classmethod
    def of(cls, schedule: Schedule) -> "SigmaSpace":
        """The paper's, or the straight path for a schedule that ends without signal (flow, zero terminal SNR)."""
        noisiest = schedule.at_sigma(schedule.sigma_range[1])
        return cls(schedule, 0.0 if noisiest.alpha else 1.0)

    def scale(self, level: Level) -> float:
        """c."""
        return level.alpha + self.weight * level.sigma

    def sigma(self, level: Level) -> float:
        """s."""
        return level.sigma / self.scale(level)

    def level(self, sigma: float) -> Level:
        """The level at s, for s below the schedule's highest."""
        return self.schedule.at_ratio(sigma / (1 - self.weight * sigma))

    def slope(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        """dy/ds = (y - x0) / s at a level with sigma > 0."""
        return (x - self.scale(level) * x0) / level.sigma

    def move(self, x: Tensor, slope: Tensor, here: Level, there: Level) -> Tensor:
        """x at ``there`` after a straight step from ``here``: y' = y + (s' - s) * slope."""
        c = self.scale(there)
        return c / self.scale(here) * x + (there.sigma - c * self.sigma(here)) * slope


def heun_step(space: SigmaSpace, denoise: Denoise, x: Tensor, here: Level, there: Level) -> Tensor:
    """One step of Heun's method (Karras et al. 2022, algorithm 1, lines 4-8): Euler's on the mean of both slopes.

    Two evaluations; one where the step ends at sigma = 0, where there is no second slope.
    """
    slope = space.slope(x, denoise(x, here), here)
    predicted = space.move(x, slope, here, there)
    if there.sigma == 0:
        return predicted
    after = space.slope(predicted, denoise(predicted, there), there)
    return space.move(x, (slope + after) / 2, here, there)


def midpoint_step(space: SigmaSpace, denoise: Denoise, x: Tensor, here: Level, there: Level) -> Tensor:
    """One step along the slope at the middle in log sigma (DPM-Solver-2 in sigma space; Karras et al. 2022, eq. 3).

    Two evaluations; one where the step ends at sigma = 0, which has no middle.
    """
    slope = space.slope(x, denoise(x, here), here)
    if there.sigma == 0:
        return space.move(x, slope, here, there)
    middle = space.level(math.sqrt(space.sigma(here) * space.sigma(there)))
    halfway = space.move(x, slope, here, middle)
    slope = space.slope(halfway, denoise(halfway, middle), middle)
    return space.move(x, slope, here, there)


def ancestral_split(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """(down, up): a step goes from ``sigma`` below its end, to ``down``, and noise ``up`` brings it to ``sigma_next``.

    down^2 + up^2 = sigma_next^2. In sigma / alpha these are, for ``eta`` = 1, the deviations of the posterior
    q(x_next | x, x0) (Ho et al. 2020, eq. 7); 0 adds no noise, and above 1 ``up`` ends at all of ``sigma_next``.

    Raises:
        InputError: negative ``eta``.
    """
    if eta < 0:
        raise InputError(f"scheduler.eta={eta:g} must be at least 0; 0 adds no noise")
    kept = (sigma_next / sigma) ** 2
    up = min(eta**2 * (1 - kept), 1.0)
    down = max((1 - eta) * (1 + eta) + eta**2 * kept, 0.0)  # 1 - up, without its cancellation at eta = 1
    return sigma_next * math.sqrt(down), sigma_next * math.sqrt(up)


def add_noise(x: Tensor, here: Level, there: Level, z: Tensor) -> Tensor:
    """The forward process from ``here`` up to the noisier ``there``, with standard normal noise ``z``."""
    factor = there.alpha / here.alpha
    return factor * x + math.sqrt(max(there.sigma**2 - (factor * here.sigma) ** 2, 0.0)) * z
